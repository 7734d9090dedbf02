//! Every COMMIT waits for a synchronous standby that is away: by no time-out, and whether its client is there or not.

use std::time::Instant;

use testing::{Postgres, wait_until};

use crate::world::{World, client, many, seconds};

/// `database.max_connections`, and of each pool one that asks what the server is at.
const SESSIONS: i64 = 16 + 2;
/// Longer than the attempt at a batch may take otherwise.
const AWAY: u64 = 17;

/// Holds: A COMMIT that waits for a standby is waited for; the same batch is not tried again beside it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_synchronous_standby_is_away_the_one_commit_is_waited_for_and_all_goes_on_when_it_is_back() {
    let postgres = Postgres::start().await;
    let world = World::with_postgres(&postgres, 3).await;
    let standby = postgres.with_standby().await;
    let service = world.setup().start().await;
    world.produce(&many(200)).await;
    world.has_counted(200, seconds(20)).await;
    standby.pause();
    let paused = Instant::now();
    world.produce(&many(200)).await;
    let of_service = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE 'activity-service%'";
    let counting = format!("{of_service} AND wait_event = 'SyncRep'");
    wait_until("a commit waits", seconds(10), async || world.database.number(&counting).await > 0).await;
    let reader = client(&service);
    while paused.elapsed() < seconds(AWAY) {
        let sessions = world.database.number(of_service).await;
        assert!(sessions <= SESSIONS, "{sessions} sessions");
        let behind = format!("{of_service} AND wait_event_type = 'Lock'");
        assert_eq!(world.database.number(&behind).await, 0, "something waits for what the commit has locked");
        assert_eq!(reader.get("/activities/today").await.status, 200);
        assert_eq!((service.probe("ready").await, service.probe("live").await), (Some(200), Some(200)));
        tokio::time::sleep(seconds(1) / 4).await;
    }
    assert!(service.has_logged("the database does not come to the end of a statement"), "it is told");
    standby.resume();
    world.has_counted(400, seconds(20)).await;
    assert!(
        !service.has_logged("a batch is too slow"),
        "a batch that waits for the standby is no larger than it may be"
    );
    world.at_rest().await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}
