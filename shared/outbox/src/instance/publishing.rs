//! Who publishes now, as operators see it.

use serde::Serialize;
use shared::{runtime::database::Pool, web::http::schema};
use time::OffsetDateTime;
use utoipa::{
    ToSchema,
    openapi::{RefOr, Schema},
};

/// An identity whose log is not done, or that lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Instance)]
pub struct Publishing {
    pub instance: i64,
    /// `publishing`: it lives, and sends its own log and those it has adopted. `gone`: nobody holds its lock, and it is
    /// taken over soon. `ended`: its log is sent by its adopter.
    #[schema(schema_with = states)]
    pub state: String,
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    pub ended_at: Option<OffsetDateTime>,
    /// Who sends its log now, where it has ended.
    #[schema(required)]
    pub adopted_by: Option<i64>,
    /// The logs of others that it sends.
    pub adopted: Vec<i64>,
    /// Messages of its own log that are to be sent.
    #[schema(minimum = 0)]
    pub unpublished: i64,
}

fn states() -> RefOr<Schema> {
    schema::one_of(["publishing", "gone", "ended"])
}

/// More than ever live at once, with logs that nobody could send for days.
const MOST: i64 = 1000;

/// Every identity whose log is not done, the newest first.
///
/// # Errors
/// The database's.
pub async fn list(pool: &Pool) -> Result<Vec<Publishing>, sqlx::Error> {
    sqlx::query_as!(
        Publishing,
        r#"
        WITH held AS MATERIALIZED (
            SELECT (classid::bigint << 32) | objid::bigint AS id FROM pg_locks
            WHERE locktype = 'advisory' AND objsubid = 1 AND granted
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        ), logs AS MATERIALIZED (
            SELECT *, settled_to(instance_id) AS settled_to FROM instances WHERE done_at IS NULL
            ORDER BY instance_id DESC LIMIT $1
        )
        SELECT
            l.instance_id AS instance,
            CASE WHEN l.ended_at IS NOT NULL THEN 'ended' WHEN EXISTS (SELECT FROM held WHERE id = l.instance_id)
                THEN 'publishing' ELSE 'gone' END AS "state!",
            l.started_at,
            l.ended_at,
            -- Whoever has ended sends nothing.
            (SELECT a.instance_id FROM instances a WHERE a.instance_id = l.adopter AND a.ended_at IS NULL) AS adopted_by,
            ARRAY(SELECT o.instance_id FROM logs o WHERE o.adopter = l.instance_id AND l.ended_at IS NULL
                ORDER BY o.instance_id) AS "adopted!",
            -- As the metric outbox_unpublished_messages: a few numbers a log.
            greatest(0, coalesce(newest.seq, -1) - l.settled_to
                - (SELECT coalesce(sum(cardinality(p.seqs)), 0) FROM published p
                    WHERE p.instance = l.instance_id AND p.block > greatest(l.settled_to, 0) / 4096)
                - (SELECT count(*) FROM published p CROSS JOIN LATERAL UNNEST(p.seqs) AS one (seq)
                    WHERE p.instance = l.instance_id AND p.block = greatest(l.settled_to, 0) / 4096
                        AND p.block * 4096 + one.seq > l.settled_to)
                - (SELECT count(*) FROM rejected_messages r
                    WHERE r.instance = l.instance_id AND r.seq > l.settled_to AND r.state <> 'waiting')
            )::bigint AS "unpublished!"
        FROM logs l
        LEFT JOIN LATERAL (
            SELECT seq FROM outbox m WHERE m.instance = l.instance_id ORDER BY m.instance DESC, m.seq DESC LIMIT 1
        ) newest ON true
        ORDER BY l.instance_id DESC
        "#,
        MOST
    )
    .fetch_all(pool)
    .await
}
