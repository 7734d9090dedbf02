//! Where the key of a message lies: in the partition of its reference's day, or with the undated. That
//! follows from the reference alone, so a reference has one place for ever and is unique. The migration has
//! the same rule in SQL, and a check of the table compares.
//!
//! Partitions are made days ahead. Where one is missing all the same, because a reference is of another day
//! than the clock, counting makes it: a reference that finds no partition would stop everything.

use std::collections::BTreeSet;

use sqlx::PgConnection;
use time::Date;
use uuid::Uuid;

pub mod redelivered;

const MILLISECONDS_OF_A_DAY: u128 = 24 * 60 * 60 * 1000;
/// Below the milliseconds of a UUIDv7 there are so many bits.
const BITS_BELOW: u32 = 80;
const JULIAN_DAY_OF_1970: i32 = 2_440_588;
/// 2020-01-01 to 2099-12-31, in days since 1970.
const DATED: std::ops::Range<u128> = 18_262..47_482;

/// Days that one transaction touches. Each costs two entries of Postgres's table of locks, and five where
/// its partition is made; that table has some 6,400 for everybody. Whoever has more takes less at once.
pub const DAYS_AT_ONCE: usize = 64;

/// The day in UTC that a reference carries; none of one that is undated.
#[must_use]
pub fn day(message_ref: Uuid) -> Option<Date> {
    let days = (message_ref.as_u128() >> BITS_BELOW) / MILLISECONDS_OF_A_DAY;
    let is_dated = message_ref.get_version_num() == 7 && DATED.contains(&days);
    Date::from_julian_day(JULIAN_DAY_OF_1970 + i32::try_from(days).ok().filter(|_| is_dated)?).ok()
}

/// The least reference of a day since 1970.
#[must_use]
pub fn begin(day: Date) -> Uuid {
    let days = u128::try_from(day.to_julian_day() - JULIAN_DAY_OF_1970).unwrap_or_default();
    Uuid::from_u128((days * MILLISECONDS_OF_A_DAY) << BITS_BELOW)
}

/// The days of the dated among `refs`.
pub fn days(refs: impl Iterator<Item = Uuid>) -> BTreeSet<Date> {
    refs.filter_map(day).collect()
}

/// Makes the partitions that are missing. Called in a transaction that holds its place in the admission:
/// until it ends no partition is dropped.
///
/// # Errors
/// As Postgres answers. The transaction is lost then.
pub async fn make_partitions(transaction: &mut PgConnection, days: &BTreeSet<Date>) -> Result<(), sqlx::Error> {
    let days: Vec<Date> = days.iter().copied().collect();
    sqlx::query!(
        r#"
        SELECT make_key_partition(day) AS made FROM UNNEST($1::date[]) AS day
        WHERE to_regclass('processed_messages_' || to_char(day, 'YYYYMMDD')) IS NULL
        "#,
        &days
    )
    .execute(transaction)
    .await?;
    Ok(())
}

/// What comes after it in the transaction is planned with its values, so that the partitions it cannot mean
/// are neither read nor locked: one of them may be about to go.
///
/// # Errors
/// As Postgres answers. The transaction is lost then.
pub async fn plan_with_values(transaction: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!("SET LOCAL plan_cache_mode = force_custom_plan").execute(transaction).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::date;

    use super::*;

    #[test]
    fn a_day_begins_with_its_first_millisecond() {
        let of_version_7 = |at: Uuid| Uuid::from_u128(at.as_u128() | 0x7 << 76);
        let before = |at: Uuid| Uuid::from_u128(at.as_u128() - (1 << BITS_BELOW));
        for (begins, of) in [(date!(2020 - 01 - 01), None), (date!(2026 - 11 - 29), Some(date!(2026 - 11 - 28)))] {
            assert_eq!(day(of_version_7(begin(begins))), Some(begins));
            assert_eq!(day(of_version_7(before(begin(begins)))), of);
        }
        assert_eq!(day(of_version_7(begin(date!(2100 - 01 - 01)))), None);
        assert_eq!(day(of_version_7(before(begin(date!(2100 - 01 - 01))))), Some(date!(2099 - 12 - 31)));
        assert_eq!(day(begin(date!(2026 - 11 - 29))), None, "without a version");
        assert_eq!((day(Uuid::nil()), day(Uuid::max())), (None, None));
    }

    proptest! {
        #[test]
        fn a_reference_lies_within_its_day(reference: u128) {
            let reference = Uuid::from_u128(reference);
            if let Some(day) = day(reference) {
                prop_assert!(begin(day) <= reference && reference < begin(day.next_day().unwrap()));
            }
        }
    }
}
