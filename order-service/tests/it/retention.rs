//! What was published goes when it is old enough, and nothing else does.

use testing::{Checker, wait_until};
use uuid::Uuid;

use crate::world::{TAKEN_OVER, World, identity, seconds};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn published_messages_go_when_they_are_old_and_unpublished_and_failed_ones_never() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    client.load(5000, 32).await;
    world.at_rest(seconds(10)).await;
    assert_eq!(service.stop().await, Some(0));
    // Old by their references, as they are by their times: 10 days; some of them not sent.
    world
        .database
        .execute(
            "UPDATE outbox SET placed_at = placed_at - interval '10 days', published_at = published_at - interval '10 days',
                message_ref = (lpad(to_hex((extract(epoch FROM placed_at - interval '10 days') * 1000)::bigint), 12, '0')
                    || substr(replace(message_ref::text, '-', ''), 13))::uuid
             WHERE order_id <= 4000",
        )
        .await;
    let kept: Vec<Uuid> = sqlx::query_scalar(
        r#"UPDATE outbox SET state = CASE WHEN order_id % 2 = 0 THEN 'failed' ELSE 'unpublished' END, published_at = NULL,
            partition = NULL, "offset" = NULL, failures = 10, retry_at = now() + interval '1 hour', owner = 0
        WHERE order_id <= 40 RETURNING message_ref"#,
    )
    .fetch_all(&world.database.pool)
    .await
    .unwrap();

    let setup = world.setup().set("retention.every", "100ms").set("retention.pause", "20ms");
    let setup = setup.set("retention.batch_size", 100);
    let (one, other) = (setup.start().await, setup.start().await);
    let client = world.client(&one);
    let left = "SELECT count(*) FROM outbox WHERE placed_at < now() - interval '7 days'";
    client
        .load_during(8, async {
            wait_until("what is old and published is gone", seconds(20), async || {
                world.database.number(left).await == 40
            })
            .await;
        })
        .await;
    assert_eq!(world.history.others(), [].into(), "requests go on");
    for state in ["failed", "unpublished"] {
        let old = format!("SELECT count(*) FROM outbox WHERE state = '{state}' AND order_id <= 40");
        assert_eq!(world.database.number(&old).await, 20, "{state}");
    }
    let young = world.database.number("SELECT count(*) FROM outbox WHERE order_id BETWEEN 4001 AND 5000").await;
    assert_eq!(young, 1000, "what is younger stays");
    let orders = world.database.number("SELECT count(*) FROM orders WHERE order_id <= 5000").await;
    assert_eq!(orders, 5000, "an order does not go with its message");
    assert_eq!((one.stop().await, other.stop().await), (Some(0), Some(0)));
    // Their references were changed: what is on the topic has no row of the same any more.
    world.judge_with(|checker| checker.purge_allowed().unpublished_allowed().failed(kept).failures_allowed()).await;
}

#[tokio::test]
async fn only_one_instance_purges_at_a_time_and_nobody_waits_for_it() {
    let world = World::new().await;
    let setup = world.setup().set("retention.published_messages", "1s").set("retention.every", "50ms");
    let (one, other) = (setup.start().await, setup.start().await);
    // Another one is at it: its lock is held.
    let mut purging = world.database.pool.begin().await.unwrap();
    sqlx::raw_sql("SELECT pg_advisory_xact_lock(x'7075726765'::bigint)").execute(&mut *purging).await.unwrap();
    let client = world.client(&one);
    client.load(300, 8).await;
    world.at_rest(seconds(10)).await;
    tokio::time::sleep(seconds(2)).await;
    assert_eq!(world.count("published").await, 300, "the others pass by");
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'";
    assert_eq!(world.database.number(waiting).await, 0);
    purging.rollback().await.unwrap();
    wait_until("they are gone", seconds(5), async || world.count("published").await == 0).await;
    client.place_one().await;
    world.at_rest(seconds(5)).await;
    assert_eq!((one.stop().await, other.stop().await), (Some(0), Some(0)));
    world.judge_with(Checker::purge_allowed).await;
}

#[tokio::test]
async fn an_instance_killed_while_it_purges_leaves_the_rest_to_the_other_one() {
    for point in ["retention::before_commit", "retention::committed"] {
        let world = World::new().await;
        let setup = world.setup().set("retention.published_messages", "1s").set("retention.every", "50ms");
        let setup = setup.set("retention.batch_size", 20);
        let mut killed = setup.clone().failpoint(point, "3*off->return").start().await;
        let me = identity(&killed);
        let client = world.client(&killed);
        client.load(300, 8).await;
        killed.ended(seconds(10)).await;
        let other = setup.start().await;
        wait_until("the rest is gone", seconds(10), async || {
            world.database.number("SELECT count(*) FROM outbox").await == 0
        })
        .await;
        wait_until("it has ended", seconds(3), async || other.has_logged(TAKEN_OVER)).await;
        assert_ne!(identity(&other), me);
        assert_eq!(other.stop().await, Some(0));
        world.judge_with(Checker::purge_allowed).await;
    }
}
