//! An order-service that is one of several cells.

use testing::{Setup, wait_until};

use crate::{
    verify::verify,
    world::{World, seconds},
};

fn of(world: &World, number: u32, count: u32) -> Setup {
    world.setup().set("cell.number", number).set("cell.count", count)
}

/// Waits for the end of one that is refused.
async fn is_refused(setup: &Setup, told: &str) {
    let mut service = setup.spawn();
    assert_eq!(service.ended(seconds(20)).await.code(), Some(2), "{told}");
    let is_told = service.log().iter().any(|line| line["message"].as_str().is_some_and(|text| text.contains(told)));
    assert!(is_told, "{told}: {:?}", service.log());
}

/// Holds: A database is of one cell: order-service is refused under another number or count.
#[tokio::test]
async fn a_database_of_one_cell_is_refused_under_another() {
    let world = World::new().await;
    let service = of(&world, 2, 3).start().await;
    assert_eq!(world.client(&service).place_one().await, "OS1000000000002-ORD");
    assert_eq!(service.stop().await, Some(0));
    for (number, count) in [(1, 3), (3, 3), (2, 4), (1, 1)] {
        let told = format!("cell.number, cell.count: this database is of cell 2 of 3, not of {number} of {count}");
        is_refused(&of(&world, number, count), &told).await;
    }
    let service = of(&world, 2, 3).start().await;
    let order = world.client(&service).place_one().await;
    assert_eq!(order, "OS1000000000005-ORD");
    assert_eq!(world.client(&service).change(&order, "cancel").await.unwrap().status, 200);
    world.at_rest(seconds(20)).await;
    let sources: Vec<_> = world.topic.dump().await.iter().map(|message| message.header("ce_source")).collect();
    assert_eq!(sources, ["/order-service/2"; 3]);
    let verified = verify(&of(&world, 2, 3)).await;
    assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stdout));
    assert!(String::from_utf8_lossy(&verified.stdout).contains("3"), "it found them");
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn one_that_is_alone_becomes_the_first_of_several_and_nothing_else() {
    let world = World::new().await;
    let service = world.setup().start().await;
    assert_eq!(world.client(&service).place_one().await, "OS000001-ORD");
    is_refused(&of(&world, 2, 3), "this database is of cell 1 of 1, not of 2 of 3").await;
    // One after the other: each draws numbers of its own.
    let first = of(&world, 1, 3).start().await;
    assert_eq!(world.client(&first).place_one().await, "OS1000000000004-ORD");
    assert_eq!(world.client(&service).place_one().await, "OS000003-ORD");
    assert_eq!(service.stop().await, Some(0));
    is_refused(&world.setup(), "this database is of cell 1 of 3, not of 1 of 1").await;
    is_refused(&of(&world, 1, 4), "this database is of cell 1 of 3, not of 1 of 4").await;
    world.at_rest(seconds(20)).await;
    assert!(world.topic.dump().await.iter().all(|message| message.header("ce_source") == "/order-service"));
    assert_eq!(first.stop().await, Some(0));
    world.judge().await;
}

/// Of a version before, whose database knows of no cells.
#[tokio::test]
async fn a_database_with_orders_and_without_a_cell_is_of_one_that_is_alone() {
    let world = World::new().await;
    world.left_by_ended(3, 0).await;
    is_refused(&of(&world, 2, 3), "this database is of cell 1 of 1, not of 2 of 3").await;
    let service = world.setup().start().await;
    assert_eq!(world.client(&service).place_one().await, "OS000004-ORD");
    world.at_rest(seconds(20)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

/// Whoever counts has to know of it before its first order.
#[tokio::test]
async fn a_new_cell_takes_no_order_before_it_has_told_of_itself() {
    let world = World::with_brokers("127.0.0.1:1".to_owned()).await;
    let new = of(&world, 2, 3).spawn();
    tokio::time::sleep(seconds(4)).await;
    assert_eq!((new.probe("startup").await, new.probe("ready").await), (Some(503), Some(503)));
    assert_eq!(new.stop().await, Some(0));
    // One that is known starts without Kafka, as any other does.
    world.database.execute("UPDATE cell SET known_at = now()").await;
    let known = of(&world, 2, 3).start().await;
    known.kill().await;
    world.judge_nothing_placed().await;
}

/// Holds: No instance of a new cell waits for Kafka once another one has told of it.
#[tokio::test]
async fn what_one_instance_of_a_new_cell_has_told_no_other_one_has_to() {
    let world = World::new().await;
    // Nobody listens there.
    let mut cut_off = of(&world, 2, 3).set("kafka.brokers", "127.0.0.1:9").spawn();
    // Until it has seen that the cell is new.
    wait_until("it waits", seconds(30), async || {
        cut_off.probe("startup").await == Some(503)
            && cut_off.health().await["components"]["announcer"]["lastError"].is_string()
    })
    .await;
    let service = of(&world, 2, 3).start().await;
    cut_off.ready().await;
    world.client(&cut_off).place_one().await;
    assert_eq!(service.stop().await, Some(0));
    // What waits in the memory of the one that is cut off is sent by whoever comes after it.
    cut_off.kill().await;
    let service = of(&world, 2, 3).start().await;
    world.at_rest(seconds(20)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}
