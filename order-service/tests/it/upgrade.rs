//! A rolling update: the version before the newest migration goes on with the schema after it, beside the version of
//! now. It has to be built from the history first, so this runs with `make upgrade`.

use testing::{binary_before, wait_until};

use crate::world::{World, identity, seconds};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "builds the version before: make upgrade"]
async fn the_version_before_and_that_of_now_announce_every_order_once_on_the_schema_of_now() {
    let world = World::new().await;
    // One from before the columns were named starts only where it may change every one.
    world.database.execute("GRANT UPDATE ON rejected_messages TO test_service").await;
    let before = world.setup().of(binary_before("order-service"));
    let (old, new) = (before.start().await, world.setup().start().await);
    let (on_old, on_new) = (world.client(&old), world.client(&new));
    on_old.load_during(4, on_new.load_during(4, tokio::time::sleep(seconds(3)))).await;
    for client in [&on_old, &on_new] {
        let order = client.place_one().await;
        assert_eq!(client.change(&order, "complete").await.unwrap().status, 200);
    }
    world.at_rest(seconds(10)).await;
    // Each sends what the other one has left.
    let of_old = identity(&old);
    old.kill().await;
    world.left_behind(300, of_old).await;
    world.at_rest(seconds(10)).await;
    let old = before.start().await;
    assert_eq!(new.stop().await, Some(0));
    world.left_by_ended(300, 0).await;
    world.left_behind(300, 1).await;
    world.at_rest(seconds(10)).await;
    let forgotten = "SELECT count(*) FROM instances WHERE done_at IS NULL";
    wait_until("their logs are done", seconds(10), async || world.database.number(forgotten).await == 1).await;
    assert_eq!(old.stop().await, Some(0));
    world.judge().await;
}
