//! A transaction repeated until its outcome is known. The answer to a COMMIT may be lost, and the
//! transaction may still commit later: a look that finds nothing proves nothing. Only the same again,
//! under the same references, waits for it and gives an answer that is final.

use std::{sync::Arc, time::Duration};

use shared::runtime::{
    database::{Failure, OwnFinding, Pool, backoff, has_no_partition, is_rolled_back},
    health::TaskStatus,
};
use sqlx::postgres::PgConnection;
use tokio::time::{Instant, sleep, timeout};

/// After this long it is asked whether the server is still at it. Where it is, the answer is waited for: the same again
/// would wait for it as well.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// A transaction is repeated for so long at most. Its message's reference is older than that by a moment only,
/// and the partition it belongs to stays for a day: see the function `drop_outbox_partition`.
const REPEATED_FOR: Duration = Duration::from_hours(23);

/// What the earlier attempts of a transaction may have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Earlier {
    /// There was none, or each is known to have done nothing.
    DidNothing,
    /// The outcome of one is unknown: it may have done it already, and may still be under way.
    MayHaveDone,
}

/// A transaction that does nothing a second time.
pub trait Repeatable {
    type Done;

    /// Carries it out. What fails after it may have been committed must not look like an answer to it, see
    /// [`committed_before`]. None where the identity has ended under which it was to be done: this attempt has
    /// done nothing.
    fn attempt(
        &self,
        connection: &mut PgConnection,
        earlier: Earlier,
    ) -> impl Future<Output = Result<Option<Self::Done>, sqlx::Error>> + Send;

    /// Waits until this process has another identity, and is done under that one from now on.
    fn renew(&mut self) -> impl Future<Output = ()> + Send;
}

/// How long an identity that has ended may take to be replaced before what was never done is
/// given back to its caller.
const RENEWED_WITHIN: Duration = Duration::from_secs(3);

/// A failure of what was asked after the transaction. Whatever the server answers to that says nothing of the
/// transaction itself, which may be committed: to take it for refused would be to forget its message.
#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
pub fn committed_before(error: sqlx::Error) -> sqlx::Error {
    OwnFinding::AfterStatement(error.to_string()).into()
}

/// How it ended.
#[derive(Debug)]
pub enum Outcome<T> {
    Done {
        done: T,
        earlier: Earlier,
    },
    /// It never came to the server.
    NotSent,
    /// The last attempt was rolled back, or it is given up.
    Refused {
        error: Arc<sqlx::Error>,
        earlier: Earlier,
    },
}

/// Attempts it until the outcome is known.
pub async fn until_known<R: Repeatable + Send + Sync>(
    pool: &Pool,
    transaction: &mut R,
    mut earlier: Earlier,
    status: &TaskStatus,
) -> Outcome<R::Done> {
    let begun = Instant::now();
    for pause in backoff() {
        // Waiting for an identity is no work: the session does it.
        let (sent, answer) = attempt(pool, transaction, earlier, status).await;
        let error = match answer {
            Ok(Some(done)) => {
                status.ok();
                return Outcome::Done { done, earlier };
            }
            Ok(None) => {
                if earlier == Earlier::MayHaveDone {
                    transaction.renew().await;
                } else if timeout(RENEWED_WITHIN, transaction.renew()).await.is_err() {
                    return Outcome::NotSent;
                }
                continue;
            }
            Err(error) => error,
        };
        if sent {
            match Failure::of(&error) {
                // Its day is about to be made.
                Failure::Refused if has_no_partition(&error) => {}
                Failure::Refused | Failure::Defect => {
                    return Outcome::Refused { error: Arc::new(error), earlier };
                }
                Failure::Conflict => continue,
                Failure::Outage if is_rolled_back(&error) => {}
                Failure::Outage => earlier = Earlier::MayHaveDone,
            }
        }
        status.failing(&error, "the database takes nothing; trying again");
        if earlier == Earlier::DidNothing {
            return Outcome::NotSent;
        }
        if begun.elapsed() > REPEATED_FOR {
            return Outcome::Refused { error: Arc::new(error), earlier };
        }
        sleep(pause).await;
    }
    unreachable!("the back-off never ends")
}

/// One attempt; and whether anything was sent, without which nothing can have been done.
async fn attempt<R: Repeatable>(
    pool: &Pool,
    transaction: &R,
    earlier: Earlier,
    status: &TaskStatus,
) -> (bool, Result<Option<R::Done>, sqlx::Error>) {
    let mut connection = match pool.acquire().await {
        Ok(connection) => connection,
        Err(error) => return (false, Err(error)),
    };
    let backend = connection.backend();
    let answer =
        pool.until_answered(status, ANSWER_WITHIN, backend, transaction.attempt(&mut connection, earlier)).await;
    connection.end_with(&answer);
    (true, answer)
}
