//! A transaction repeated until its outcome is known. The answer to a COMMIT may be lost, and the
//! transaction may still commit later: a look that finds nothing proves nothing. Only the same again,
//! under the same references, waits for it and gives an answer that is final.

use std::{sync::Arc, time::Duration};

use shared::{
    database::{Failure, backoff, within},
    health::Component,
};
use sqlx::{PgPool, postgres::PgConnection};
use tokio::time::sleep;

/// After this long the connection is given up. The statement may still be carried out.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// A transaction that does nothing a second time.
pub trait Repeatable {
    type Done;

    /// Carries it out. `again`: an earlier attempt is of unknown outcome, may have done it already,
    /// and may still be under way.
    fn attempt(
        &self,
        connection: &mut PgConnection,
        again: bool,
    ) -> impl Future<Output = Result<Self::Done, sqlx::Error>> + Send;
}

/// How it ended.
#[derive(Debug)]
pub enum Outcome<T> {
    /// `again`: not at the first attempt.
    Done { done: T, again: bool },
    /// It never came to the server.
    NotSent,
    /// The last attempt was rolled back; an earlier one may have done it all the same.
    Refused { error: Arc<sqlx::Error>, maybe_done: bool },
}

/// Attempts it until the outcome is known. `maybe_done`: an earlier attempt is of unknown outcome.
pub async fn until_known<R: Repeatable + Sync>(
    pool: &PgPool,
    transaction: &R,
    mut maybe_done: bool,
    page: &Component,
) -> Outcome<R::Done> {
    for pause in backoff() {
        let _work = page.work();
        let (sent, answer) = attempt(pool, transaction, maybe_done).await;
        let error = match answer {
            Ok(done) => {
                page.working();
                return Outcome::Done { done, again: maybe_done };
            }
            Err(error) => error,
        };
        if sent {
            match Failure::of(&error) {
                Failure::Refused | Failure::Defect => {
                    return Outcome::Refused { error: Arc::new(error), maybe_done };
                }
                Failure::Conflict => continue,
                Failure::Outage => maybe_done = true,
            }
        }
        if page.waiting(&error) {
            tracing::warn!(error = %error, "the database does not take orders; trying again");
        }
        if !maybe_done {
            return Outcome::NotSent;
        }
        sleep(pause).await;
    }
    unreachable!("the back-off never ends")
}

/// One attempt; and whether anything was sent, without which nothing can have been done.
async fn attempt<R: Repeatable>(pool: &PgPool, transaction: &R, again: bool) -> (bool, Result<R::Done, sqlx::Error>) {
    let mut connection = match pool.acquire().await {
        Ok(connection) => connection,
        Err(error) => return (false, Err(error)),
    };
    let answer = within(ANSWER_WITHIN, transaction.attempt(&mut connection, again)).await;
    if answer.as_ref().is_err_and(|error| Failure::of(error) == Failure::Outage) {
        // An answer that is still under way would meet the connection's next user.
        drop(connection.detach());
    }
    (true, answer)
}
