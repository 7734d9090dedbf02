//! A message whose bytes somebody has mended is counted with those, by the rules for any message. The bytes that
//! came stay as they are, and the others stand beside them.

use std::borrow::Cow;

use shared::{
    operators::audit::{Action, Author},
    runtime::database::{Failure, Pool},
};
use uuid::Uuid;

use super::{
    Rejected,
    replay::{FigureChange, places},
};
use crate::{
    activity::{self, Activity, Received},
    admission::{Admission, expect_rows},
    audit, metrics,
    statistics::{self, Outcome},
    trial,
};

/// What became of the wish to count other bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Corrected {
    /// Counted, or known to be counted already.
    Done,
    /// It would be, and this would be added to the figures; nothing has changed.
    Possible(Vec<FigureChange>),
    NotWaiting,
    Unknown,
    /// They cannot be counted either; nothing has changed.
    Refused(Rejected),
}

#[derive(Debug)]
pub struct Correction<'a> {
    pub pool: &'a Pool,
    pub time_zone: &'a str,
    pub id: Uuid,
    pub value: &'a [u8],
    /// Who has mended it, and why: kept with the message.
    pub author: &'a Author,
    pub why: &'a str,
    /// Rolls back, and tells what it would have done.
    pub dry_run: bool,
}

impl Correction<'_> {
    /// # Errors
    /// The database's.
    pub async fn apply(&self) -> Result<Corrected, sqlx::Error> {
        // The header ce_type is not looked at: it is that of the bytes that came.
        let parsed = activity::parse(Some(self.value), None);
        loop {
            match self.attempt(&parsed).await {
                Ok(Some(done)) => return Ok(done),
                // Keys were purged meanwhile: what is too old by now is refused the next time.
                Ok(None) => {}
                Err(error) if Failure::of(&error) == Failure::Conflict => {}
                Err(error) if Failure::of(&error) == Failure::Refused => {
                    let suspect = parsed.as_ref().ok().map(|activity| activity.message_ref);
                    trial::count_a_good_one(self.pool, self.time_zone, suspect, &[]).await?;
                    return Ok(Corrected::Refused(Rejected::by_the_database(&error)));
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn attempt(&self, parsed: &Result<Activity, Rejected>) -> Result<Option<Corrected>, sqlx::Error> {
        let refused = |why: Cow<'_, Rejected>| Ok(Some(Corrected::Refused(why.into_owned())));
        let mut transaction = self.pool.begin().await?;
        let admission = Admission::open(&mut transaction, self.time_zone).await?;
        let row = sqlx::query!(
            r#"SELECT state, topic, partition, "offset" FROM quarantine WHERE quarantine_id = $1 FOR UPDATE"#,
            self.id
        );
        let Some(row) = row.fetch_optional(&mut *transaction).await? else {
            return Ok(Some(Corrected::Unknown));
        };
        if row.state != "waiting" {
            return Ok(Some(Corrected::NotWaiting));
        }
        let judge = admission.look_at(&mut transaction, parsed.iter()).await?;
        let activity = match judge.judge(parsed) {
            Ok(activity) => activity,
            Err(why) => return refused(why),
        };
        let copies = places(&mut transaction, &[self.id]).await?;
        let mut received = vec![Received { activity, topic: &row.topic, partition: row.partition, offset: row.offset }];
        received.extend(copies.iter().map(|copy| copy.received(activity)));
        let outcome = statistics::count(&mut transaction, self.time_zone, &received, &[]).await?;
        let Outcome { conflicting, .. } = &outcome;
        if !conflicting.is_empty() {
            return refused(Cow::Owned(activity.conflicting()));
        }
        let counted = sqlx::query!(
            r#"
            UPDATE quarantine SET state = 'counted', resolved_at = now(), resolved_by = $2, resolution = $3,
                corrected_value = $4, activity_type_code = coalesce(activity_type_code, $5),
                message_ref = coalesce(message_ref, $6)
            WHERE quarantine_id = $1
            "#,
            self.id,
            self.author.actor,
            self.why,
            self.value,
            activity.code.as_str(),
            activity.message_ref
        );
        expect_rows("messages counted", 1, counted.execute(&mut *transaction).await?.rows_affected())?;
        let (action, subject) = (Action::QuarantineEdited, [self.id.to_string()]);
        audit::record(&mut transaction, self.author, action, &subject, Some(self.why)).await?;
        if !judge.still_holds(&mut transaction, outcome.oldest_counted).await? {
            return Ok(None);
        }
        if self.dry_run {
            transaction.rollback().await?;
            return Ok(Some(Corrected::Possible(FigureChange::of(&outcome.counted))));
        }
        transaction.commit().await?;
        metrics::count_activities(&outcome.counted);
        tracing::info!(quarantine.id = %self.id, actor = self.author.actor, "message corrected and counted");
        Ok(Some(Corrected::Done))
    }
}
