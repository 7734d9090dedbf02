//! The statements about the table, once for both databases; a macro as [`crate::audit_table`] is.

/// Defines `find`, `begin` and `end` for the table `pause` of the crate's database. `record` writes the audit.
#[macro_export]
macro_rules! pause_table {
    ($record:path, $paused:expr, $resumed:expr) => {
        /// # Errors
        /// The database's.
        pub async fn find(pool: &$crate::runtime::database::Pool) -> Result<$crate::operators::pause::Pause, ::sqlx::Error> {
            let found = ::sqlx::query_as!(
                $crate::operators::pause::Pause,
                r#"
                SELECT true AS "paused!", reason AS "reason?", paused_by AS "by?", paused_at AS "since?", until
                FROM pause WHERE until IS NULL OR until > now()
                "#
            );
            Ok(found.fetch_optional(pool).await?.unwrap_or_default())
        }

        /// Pauses, or changes the reason and the end of a pause.
        ///
        /// # Errors
        /// The database's.
        pub async fn begin(
            pool: &$crate::runtime::database::Pool,
            wanted: &$crate::operators::pause::Wanted,
            author: &$crate::operators::audit::Author,
        ) -> Result<$crate::operators::pause::Pause, ::sqlx::Error> {
            let mut transaction = pool.begin().await?;
            let begun = ::sqlx::query_as!(
                $crate::operators::pause::Pause,
                r#"
                INSERT INTO pause AS known (reason, paused_by, until) VALUES ($1, $2, now() + make_interval(secs => $3))
                ON CONFLICT (is_it) DO UPDATE SET reason = excluded.reason, paused_by = excluded.paused_by,
                    -- One that goes on has begun before.
                    paused_at = CASE WHEN known.until <= now() THEN now() ELSE known.paused_at END, until = excluded.until
                RETURNING true AS "paused!", reason AS "reason?", paused_by AS "by?", paused_at AS "since?", until
                "#,
                wanted.reason,
                author.actor,
                wanted.lasts.map(|lasts| lasts.as_secs_f64())
            );
            let begun = begun.fetch_one(&mut *transaction).await?;
            let subject = match begun.until {
                Some(until) => format!("until {until}"),
                None => "until resumed".to_owned(),
            };
            $record(&mut transaction, author, $paused, &[subject], Some(&wanted.reason)).await?;
            transaction.commit().await?;
            ::tracing::warn!(actor = author.actor, reason = wanted.reason, "paused");
            Ok(begun)
        }

        /// Resumes; whether there was a pause.
        ///
        /// # Errors
        /// The database's.
        pub async fn end(
            pool: &$crate::runtime::database::Pool,
            author: &$crate::operators::audit::Author,
        ) -> Result<bool, ::sqlx::Error> {
            let mut transaction = pool.begin().await?;
            let ended = ::sqlx::query_scalar!(r#"DELETE FROM pause RETURNING until IS NULL OR until > now() AS "was!""#);
            let was = ended.fetch_optional(&mut *transaction).await?.unwrap_or(false);
            if was {
                let subject = ["by hand".to_owned()];
                $record(&mut transaction, author, $resumed, &subject, None).await?;
            }
            transaction.commit().await?;
            if was {
                ::tracing::warn!(actor = author.actor, "resumed");
            }
            Ok(was)
        }
    };
}
