//! Whether the database takes a message that is good, right now. Where it does not, no message is to blame for
//! what it refuses: an unknown time zone is refused with the code of a wrong value.

use shared::contract::message::ActivityTypeCode;
use shared::runtime::database::Pool;
use uuid::Uuid;

use crate::{
    activity::{Activity, Received},
    admission::Admission,
    statistics::{self, PositionAfter},
};

/// The bits of a UUIDv7 below its time and version.
const RANDOM: u128 = (1 << 76) - 1;

/// Counts a message of a registered type and of now, and takes it back. Its reference is new, and has its
/// place beside that of `suspect`.
///
/// # Errors
/// As Postgres answers to the good message.
pub async fn count_a_good_one(
    pool: &Pool,
    time_zone: &str,
    suspect: Option<Uuid>,
    positions: &[PositionAfter<'_>],
) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let admission = Admission::open(&mut transaction, time_zone).await?;
    // Types are never removed, and some are there from the start.
    if let Some(code) = admission.any_type().and_then(ActivityTypeCode::parse) {
        let activity = Activity { message_ref: beside(suspect), code, at: admission.now() };
        admission.look_at(&mut transaction, std::iter::once(&activity)).await?;
        let received = [Received { activity: &activity, topic: "", partition: 0, offset: 0 }];
        statistics::count(&mut transaction, time_zone, &received, positions).await?;
    }
    transaction.rollback().await
}

/// A new reference of the same day and version.
fn beside(suspect: Option<Uuid>) -> Uuid {
    let new = Uuid::now_v7();
    suspect.map_or(new, |suspect| Uuid::from_u128(suspect.as_u128() & !RANDOM | new.as_u128() & RANDOM))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key;

    #[test]
    fn a_good_message_has_its_key_where_the_suspect_has_it() {
        for suspect in ["0192f0c1-7a5e-7c3a-9d2b-3f4e5a6b7c8d", "0192f0c1-7a5e-4c3a-9d2b-3f4e5a6b7c8d"] {
            let suspect = Uuid::try_parse(suspect).unwrap();
            assert_eq!(key::day(beside(Some(suspect))), key::day(suspect));
            assert_ne!(beside(Some(suspect)), suspect);
        }
        assert!(key::day(beside(None)).is_some());
    }
}
