//! What the tables keep: nothing that is rewritten, and nothing for longer than it is needed.

use testing::wait_until;

use crate::world::{World, seconds};

/// Holds: No row of `outbox` or `published` is updated or deleted; none of `rejected_messages` while nothing is
/// refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_row_of_the_outbox_is_updated_or_deleted_while_nothing_is_refused() {
    let world = World::new().await;
    let service = world.setup().set("publisher.queue_capacity", 200).start().await;
    let client = world.client(&service);
    client.load(3000, 32).await;
    for order in world.history.acknowledged().keys().take(100) {
        assert_eq!(client.change(order, "complete").await.unwrap().status, 200);
    }
    world.at_rest(seconds(10)).await;
    assert_eq!(service.stop().await, Some(0));
    let inserted = "SELECT sum(n_tup_ins)::bigint FROM pg_stat_user_tables WHERE relname ~ '^outbox_[0-9]'";
    wait_until("the statistics have come", seconds(10), async || world.database.number(inserted).await == 3100).await;
    let changed = "SELECT sum(n_tup_upd + n_tup_del)::bigint FROM pg_stat_user_tables
        WHERE relname ~ '^(outbox|published)' OR relname = 'rejected_messages'";
    assert_eq!(world.database.number(changed).await, 0);
    world.judge().await;
}

#[tokio::test]
async fn a_purge_that_fails_keeps_no_other_from_its_turn() {
    let world = World::new().await;
    let old = "INSERT INTO rejections (message_ref, rejected_at, instance, failures, is_failed)
            SELECT gen_random_uuid(), now() - interval '30 days', 1, 1, false FROM generate_series(1, 10);
        INSERT INTO idempotency_keys VALUES (sha256('key'), sha256('body'), 1, now() - interval '30 days');
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'it cannot go'; END $$;
        CREATE TRIGGER refuse BEFORE DELETE ON idempotency_keys FOR EACH ROW EXECUTE FUNCTION refuse()";
    world.database.execute(old).await;
    let service = world.setup().set("retention.every", "100ms").start().await;
    wait_until("one cannot go", seconds(20), async || service.has_logged("cannot purge; trying again later")).await;
    let left = "SELECT count(*) FROM rejections";
    wait_until("the others go", seconds(20), async || world.database.number(left).await == 0).await;
    world.database.execute("DROP TRIGGER refuse ON idempotency_keys").await;
    let left = "SELECT count(*) FROM idempotency_keys";
    wait_until("so does it", seconds(20), async || world.database.number(left).await == 0).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn what_was_refused_is_forgotten_as_soon_as_it_is_due_however_much_it_is() {
    let world = World::new().await;
    let old = "INSERT INTO rejections (message_ref, rejected_at, instance, failures, is_failed)
        SELECT gen_random_uuid(), now() - interval '30 days', 1, 1, false FROM generate_series(1, 5500)";
    world.database.execute(old).await;
    let service = world.setup().set("retention.batch_size", 1000).set("retention.every", "1m").start().await;
    let left = "SELECT count(*) FROM rejections";
    wait_until("all of it goes", seconds(20), async || world.database.number(left).await == 0).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_nothing_placed().await;
}
