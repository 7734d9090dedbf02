//! Which messages may be counted, decided for the time of one transaction: those of a believable day and a registered
//! type, whose key cannot have been purged.
//!
//! Two things can change meanwhile. A type can be registered: that and the transactions exclude each
//! other by an advisory lock, so that no message is left behind as of an unknown type when those that
//! waited for it have been counted. Keys can be purged: nobody waits for that, but what was decided
//! is looked at again at the end, and decided anew where it may be wrong. Only the partition that is left
//! behind empty is dropped under the same advisory lock: it was looked for at the beginning.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
};

use shared::runtime::database::OwnFinding;
use sqlx::{Connection, PgConnection};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::{
    activity::Activity,
    key,
    rejection::{Reason, Rejected},
};

/// The key of the lock between those who count, all together, and whoever needs them out: "types" in ASCII. It is that of
/// versions before, which may run beside this one, in the schema `public`; an installation in another schema has its own.
const LOCK: i64 = 0x74_7970_6573;

/// Time zones and clocks apart, nothing has happened later.
const AHEAD_OF_THE_CLOCK: Duration = Duration::DAY;

/// A transaction that has begun to find out what may be counted. It becomes a [`Judge`], which is asked once more when all is
/// counted: whoever counts cannot leave out a step, or take them in another order.
#[derive(Debug)]
pub struct Admission {
    types: HashSet<String>,
    days: Days,
    quarantine_is_empty: bool,
    horizon: Horizon,
    /// Nothing is too old, by an operator's word.
    forced: bool,
}

/// Which of the messages that were looked at may be counted.
#[derive(Debug)]
pub struct Judge {
    admission: Admission,
    /// So old that their keys may have been purged, and without one.
    too_old: HashSet<Uuid>,
}

#[derive(Clone, Copy, Debug)]
struct Days {
    /// When 2000-01-01 began in the business time zone. Nothing happened earlier: what claims to is a
    /// broken clock or a default value.
    first: OffsetDateTime,
    /// By the clock of Postgres, which all instances share.
    now: OffsetDateTime,
}

impl Days {
    fn refusal(self, at: OffsetDateTime) -> Option<&'static str> {
        if at < self.first {
            Some("activityAt must not be of a day before 2000-01-01")
        } else if at - self.now > AHEAD_OF_THE_CLOCK {
            Some("activityAt must not be more than a day ahead of the clock")
        } else {
            None
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Horizon {
    purges: i64,
    newest_purged: Option<OffsetDateTime>,
}

impl Horizon {
    /// Whether a key of that time may have been purged. Postgres keeps microseconds; a message may tell nanoseconds.
    fn may_have_purged(&self, at: OffsetDateTime) -> bool {
        self.newest_purged.is_some_and(|newest| at < newest + Duration::MICROSECOND)
    }
}

/// Shuts everybody else's transactions out until this one ends. For the registration of a type, and for
/// the end of a partition.
///
/// # Errors
/// Those under way do not come to their end `within` that time, or as Postgres answers.
pub async fn close(transaction: &mut PgConnection, within: &str) -> Result<(), sqlx::Error> {
    // Whoever comes later stands in line behind this one: a batch that hangs must not make them wait.
    let limit = sqlx::query!("SELECT set_config('lock_timeout', $1, true) AS limit", within);
    limit.fetch_one(&mut *transaction).await?;
    let lock = sqlx::query!(
        r#"
        SELECT pg_advisory_xact_lock(CASE WHEN 'key_horizon'::regclass = to_regclass('public.key_horizon')
            THEN $1 ELSE 'key_horizon'::regclass::oid::bigint END)
        "#,
        LOCK
    );
    lock.execute(transaction).await?;
    Ok(())
}

impl Admission {
    /// The first thing that happens in a transaction.
    ///
    /// # Errors
    /// As Postgres answers.
    pub async fn open(transaction: &mut PgConnection, time_zone: &str) -> Result<Self, sqlx::Error> {
        let opened = sqlx::query!(
            r#"
            SELECT purges, newest_purged, now() AS "now!", timestamp '2000-01-01' AT TIME ZONE $2 AS "first!"
            FROM key_horizon, pg_advisory_xact_lock_shared(CASE WHEN 'key_horizon'::regclass = to_regclass('public.key_horizon')
                THEN $1 ELSE 'key_horizon'::regclass::oid::bigint END)
            "#,
            LOCK,
            time_zone
        );
        let opened = opened.fetch_one(&mut *transaction).await?;
        fail::fail_point!("consumer::admission_open", |how| Err(shared::runtime::failpoint::kill_or_fail(how)));
        // A statement of its own: it sees what was committed before the lock was had.
        let known = sqlx::query!(
            r#"
            SELECT ARRAY(SELECT activity_type_code FROM activity_types) AS "types!",
                NOT EXISTS (SELECT FROM quarantine) AS "quarantine_is_empty!"
            "#
        );
        let known = known.fetch_one(transaction).await?;
        Ok(Self {
            types: known.types.into_iter().collect(),
            days: Days { first: opened.first, now: opened.now },
            quarantine_is_empty: known.quarantine_is_empty,
            horizon: Horizon { purges: opened.purges, newest_purged: opened.newest_purged },
            forced: false,
        })
    }

    /// Then nothing that comes from the topic can be there already.
    #[must_use]
    pub fn quarantine_is_empty(&self) -> bool {
        self.quarantine_is_empty
    }

    /// One of the registered types.
    #[must_use]
    pub fn any_type(&self) -> Option<&str> {
        self.types.iter().next().map(String::as_str)
    }

    /// By the clock of Postgres.
    #[must_use]
    pub fn now(&self) -> OffsetDateTime {
        self.days.now
    }

    /// Whether what is too old may be counted as well.
    #[must_use]
    pub fn forced(self, forced: bool) -> Self {
        Self { forced, ..self }
    }

    /// Why a message may not be counted, whatever is known of its key.
    fn refusal(&self, activity: &Activity) -> Option<(Reason, &'static str)> {
        if let Some(detail) = self.days.refusal(activity.at) {
            return Some((Reason::BadDate, detail));
        }
        let is_registered = self.types.contains(activity.code.as_str());
        (!is_registered).then_some((Reason::UnknownType, "activityTypeCode must be a registered type"))
    }

    /// Sees to it that there is a partition for each key, and finds those whose key is new although they
    /// are so old that it may have been purged. What is refused anyway has no key.
    ///
    /// # Errors
    /// As Postgres answers. The transaction is lost then.
    pub async fn look_at<'a>(
        self,
        transaction: &mut PgConnection,
        activities: impl Iterator<Item = &'a Activity>,
    ) -> Result<Judge, sqlx::Error> {
        let activities: Vec<_> = activities.filter(|one| self.refusal(one).is_none()).collect();
        let days = key::days(activities.iter().map(|one| one.message_ref));
        if !days.is_empty() {
            key::make_partitions(&mut *transaction, &days).await?;
        }
        if self.forced {
            return Ok(Judge { admission: self, too_old: HashSet::new() });
        }
        let old = activities.into_iter().filter(|one| self.horizon.may_have_purged(one.at));
        let old: BTreeMap<Uuid, &Activity> = old.map(|one| (one.message_ref, one)).collect();
        if old.is_empty() {
            return Ok(Judge { admission: self, too_old: HashSet::new() });
        }
        let refs: Vec<Uuid> = old.keys().copied().collect();
        let codes: Vec<&str> = old.values().map(|one| one.code.as_str()).collect();
        let times: Vec<OffsetDateTime> = old.values().map(|one| one.at).collect();
        // Only an insert knows: it waits for whoever is inserting the same key right now.
        let mut trial = transaction.begin().await?;
        let without_key = sqlx::query_scalar!(
            r#"
            INSERT INTO processed_messages
                (message_ref, undated, activity_type_code, activity_date, activity_at, topic, partition, "offset")
            SELECT message_ref, key_is_undated(message_ref), activity_type_code, activity_at::date, activity_at, '', 0, 0
            FROM UNNEST($1::uuid[], $2::text[], $3::timestamptz[]) AS one (message_ref, activity_type_code, activity_at)
            ORDER BY message_ref
            ON CONFLICT (message_ref, undated) DO NOTHING
            RETURNING message_ref
            "#,
            &refs,
            &codes as _,
            &times,
        );
        let without_key = without_key.fetch_all(&mut *trial).await?;
        trial.rollback().await?;
        Ok(Judge { admission: self, too_old: without_key.into_iter().collect() })
    }
}

impl Judge {
    /// The activity of a message that may be counted, or why it may not.
    ///
    /// # Errors
    /// Why not.
    pub fn judge<'a>(&self, parsed: &'a Result<Activity, Rejected>) -> Result<&'a Activity, Cow<'a, Rejected>> {
        let activity = parsed.as_ref().map_err(Cow::Borrowed)?;
        let rejected = |reason, detail: &'static str| Err(Cow::Owned(activity.rejected(reason, detail)));
        if let Some((reason, detail)) = self.admission.refusal(activity) {
            return rejected(reason, detail);
        }
        if self.too_old.contains(&activity.message_ref) {
            return rejected(Reason::TooOld, "activityAt must be later than that of every purged key");
        }
        Ok(activity)
    }

    /// Whether what was judged is right even after the keys purged since. Asked after the counting:
    /// a key counted as new because it was purged in between was purged in a transaction that has
    /// ended, so this sees it. Only what was just counted as new can be wrong: where keys are purged all the time
    /// a message that is as old and has its key would be judged anew for ever.
    ///
    /// # Errors
    /// As Postgres answers. The transaction is lost then.
    pub async fn still_holds(
        self,
        transaction: &mut PgConnection,
        oldest_counted: Option<OffsetDateTime>,
    ) -> Result<bool, sqlx::Error> {
        let Some(oldest) = oldest_counted.filter(|_| !self.admission.forced) else {
            return Ok(true);
        };
        let horizon = sqlx::query_as!(Horizon, "SELECT purges, newest_purged FROM key_horizon");
        let horizon = horizon.fetch_one(transaction).await?;
        Ok(horizon.purges == self.admission.horizon.purges || !horizon.may_have_purged(oldest))
    }
}

/// An error where a statement did not touch the rows it was to touch: the transaction ends with it.
///
/// # Errors
/// The numbers differ.
pub fn expect_rows(what: &str, expected: usize, rows: u64) -> Result<(), sqlx::Error> {
    if u64::try_from(expected) == Ok(rows) {
        return Ok(());
    }
    Err(OwnFinding::Rows { what: what.to_owned(), expected, rows }.into())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_key_of_a_time_that_postgres_rounds_down_may_have_been_purged() {
        let horizon = Horizon { purges: 1, newest_purged: Some(datetime!(2026-11-22 12:00:00.000001 UTC)) };
        assert!(horizon.may_have_purged(datetime!(2026-11-22 12:00:00.000001999 UTC)));
        assert!(!horizon.may_have_purged(datetime!(2026-11-22 12:00:00.000002 UTC)));
        assert!(!Horizon { newest_purged: None, ..horizon }.may_have_purged(datetime!(2000-01-01 0:00 UTC)));
    }
}
