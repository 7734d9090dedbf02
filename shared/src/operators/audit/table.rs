//! The statements about the table, once for both databases. A macro, because sqlx checks a statement against the
//! database of the crate that it stands in.

/// Defines `record`, `list` and `run` for the table `audit` of the crate's database.
#[macro_export]
macro_rules! audit_table {
    () => {
        /// Notes what was done to each of these, in the transaction that does it.
        ///
        /// # Errors
        /// The database's.
        pub async fn record(
            connection: &mut ::sqlx::PgConnection,
            author: &$crate::operators::audit::Author,
            action: $crate::operators::audit::Action,
            subjects: &[String],
            reason: Option<&str>,
        ) -> Result<(), ::sqlx::Error> {
            ::sqlx::query!(
                r#"
                INSERT INTO audit (actor, via, action, subject, reason, request_id, os_user, database_role)
                SELECT $1, $2, $3, subject, $5, $6, $7, CASE WHEN $2 = 'command' THEN session_user END
                FROM UNNEST($4::text[]) AS subject
                "#,
                author.actor,
                author.via,
                action.as_str(),
                subjects,
                reason,
                author.request_id,
                author.os_user
            )
            .execute(connection)
            .await?;
            Ok(())
        }

        // The columns stand in the text of each query.
        macro_rules! audited {
            ($filter:tt, $page:ident) => {{
                let before = $page.before();
                ::sqlx::query_as!(
                    $crate::operators::audit::Entry,
                    "SELECT audit_id, at, actor, via, action, subject, reason, request_id, os_user, database_role "
                        + "FROM audit WHERE at >= $1 AND (at, audit_id) < ($2, $3) AND "
                        + $filter
                        + " AND ($5::text IS NULL OR action = $5) ORDER BY at DESC, audit_id DESC LIMIT $6",
                    $page.filter.from,
                    before.at,
                    before.audit_id,
                    $page.filter.actor.as_deref() as _,
                    $page.filter.action as _,
                    $page.limit + 1
                )
            }};
        }

        /// A page, newest first, and the cursor of the next one where there is more.
        ///
        /// # Errors
        /// The database's.
        pub async fn list(
            pool: &$crate::runtime::database::Pool,
            page: &$crate::operators::audit::Page,
        ) -> Result<(Vec<$crate::operators::audit::Entry>, Option<String>), ::sqlx::Error> {
            // Each filter has an index, which serves a condition in the text of the statement only.
            let mut found = match (&page.filter.actor, page.filter.action) {
                (Some(_), _) => audited!("actor = $4", page).fetch_all(pool).await?,
                (None, Some("order_completed" | "order_cancelled") | None) => {
                    audited!("$4::text IS NULL", page).fetch_all(pool).await?
                }
                (None, Some(_)) => {
                    audited!(
                        "$4::text IS NULL AND action = $5 AND action NOT IN ('order_completed', 'order_cancelled')",
                        page
                    )
                    .fetch_all(pool)
                    .await?
                }
            };
            let place = |last: &$crate::operators::audit::Entry| $crate::operators::audit::PlaceInAudit {
                at: last.at,
                audit_id: last.audit_id,
            };
            let next = $crate::web::paging::cut(&mut found, page.limit, place, &page.filter);
            Ok((found, next))
        }

        /// Writes down what was done outside of any transaction, once the database is there. Ends with the drain:
        /// what is left then is tried once, and told in the log from the first on that cannot be written.
        ///
        /// # Errors
        /// None.
        pub async fn run(
            pool: $crate::runtime::database::Pool,
            mut deeds: ::tokio::sync::mpsc::Receiver<$crate::operators::audit::Deed>,
            shutdown: $crate::runtime::lifecycle::Shutdown,
            status: $crate::runtime::health::TaskStatus,
        ) -> ::anyhow::Result<()> {
            while let Some(Some(deed)) = shutdown.unless_draining(deeds.recv()).await {
                for pause in $crate::runtime::database::backoff() {
                    match status.busy($crate::operators::audit::WRITTEN_WITHIN, write_down(&pool, &deed)).await {
                        Ok(()) => {
                            status.ok();
                            break;
                        }
                        // The others behind it would wait for ever.
                        Err(error) if $crate::operators::audit::is_refused(&error) => {
                            ::tracing::error!(error = %error, "the database refuses a row of the audit");
                            deed.stands_in_the_log_only();
                            break;
                        }
                        Err(error) => status.failing(&error, "cannot write the audit; trying again"),
                    }
                    if shutdown.unless_draining(::tokio::time::sleep(pause)).await.is_none() {
                        deed.stands_in_the_log_only();
                        break;
                    }
                }
            }
            // Who does something from now on is told that there is no place for it.
            deeds.close();
            let mut is_there = true;
            while let Some(deed) = deeds.recv().await {
                let written = write_down(&pool, &deed);
                is_there = is_there && status.busy($crate::operators::audit::WRITTEN_WITHIN, written).await.is_ok();
                if !is_there {
                    deed.stands_in_the_log_only();
                }
            }
            Ok(())
        }

        async fn write_down(
            pool: &$crate::runtime::database::Pool,
            deed: &$crate::operators::audit::Deed,
        ) -> Result<(), ::sqlx::Error> {
            ::sqlx::query!(
                r#"
                INSERT INTO audit (at, actor, via, action, subject, request_id)
                VALUES (now() - make_interval(secs => $1), $2, $3, $4, $5, $6)
                "#,
                deed.done_at.elapsed().as_secs_f64(),
                deed.author.actor,
                deed.author.via,
                deed.action.as_str(),
                deed.subject,
                deed.author.request_id
            )
            .execute(pool)
            .await?;
            Ok(())
        }
    };
}
