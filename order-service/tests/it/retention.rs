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
