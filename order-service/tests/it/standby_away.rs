//! Every COMMIT waits for a synchronous standby that is away: by no time-out, and whether its client is there or not.

use std::time::{Duration, Instant};

use testing::{Client, Postgres, order_body, wait_until};
use tokio::task::JoinSet;

use crate::world::{World, identity, seconds};

/// `database.max_connections`, the session, and of each pool one that asks what the server is at.
const SESSIONS: i64 = 16 + 1 + 2;

/// Asks again and again under its key, until it is told of its order.
async fn insists(client: Client, number: u32) {
    let (key, body) = (format!("k-{number}"), order_body(&format!("C-{number}")));
    let end = Instant::now() + seconds(90);
    while !client.place_under(&key, &body).await.is_ok_and(|answer| answer.status == 201) {
        assert!(Instant::now() < end, "nothing is placed under {key}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Holds: There are never more sessions than the pools may have, whatever the server is still at.
/// Holds: No number of an order is drawn for a request that waits for its key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_synchronous_standby_is_away_sessions_and_numbers_are_bounded_and_all_goes_on_when_it_is_back() {
    let postgres = Postgres::start().await;
    let world = World::with_postgres(&postgres).await;
    let standby = postgres.with_standby().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    client.load(50, 4).await;
    world.at_rest(seconds(10)).await;
    let before = identity(&service);
    let gaps = async || {
        world.database.number("SELECT (SELECT last_value FROM order_number) - (SELECT count(*) FROM orders)").await
    };
    assert_eq!(gaps().await, 0);
    let mut keyed = JoinSet::new();
    client
        .load_during(8, async {
            standby.pause();
            (0..8).for_each(|number| drop(keyed.spawn(insists(client.clone(), number))));
            let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            wait_until("commits wait", seconds(20), async || world.database.number(waiting).await >= 4).await;
            let away = Instant::now();
            while away.elapsed() < seconds(20) {
                let sessions = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND application_name LIKE 'order-service%'";
                let sessions = world.database.number(sessions).await;
                assert!(sessions <= SESSIONS, "{sessions} sessions");
                assert_eq!(client.get("/orders").await.status, 200);
                assert_eq!(service.probe("ready").await, Some(200));
                assert_eq!(service.probe("live").await, Some(200));
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            standby.resume();
            while let Some(placed) = keyed.join_next().await {
                placed.unwrap();
            }
        })
        .await;
    world.at_rest(seconds(20)).await;
    assert_eq!(identity(&service), before);
    // Of orders that wait for the standby each has its number; whoever asked again meanwhile has drawn none.
    assert_eq!(gaps().await, 0);
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}
