use std::time::Instant;

use testing::{Postgres, Proxy, Service, wait_until};

use crate::world::{World, client, created, many, seconds};

/// Reads are refused, and in time.
async fn refuses_reads(service: &Service) {
    for path in
        ["/activities/today", "/activities/2026-11-20", "/activities?from=2026-11-01&to=2026-11-30", "/activity-types"]
    {
        let begun = Instant::now();
        let answer = client(service).get(path).await;
        assert_eq!(answer.status, 503, "{path}: {answer:?}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert!(!answer.header("retry-after").is_empty());
        assert!(begun.elapsed() < seconds(3), "{path} took {:?}", begun.elapsed());
    }
}

fn assignments(service: &Service) -> usize {
    service.log().iter().filter(|line| line["message"] == "assignment changed").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_postgres_is_gone_for_30_s_reads_are_refused_and_nothing_else_changes_and_then_it_heals() {
    let mut postgres = Postgres::start().await;
    let world = World::with_postgres(&postgres, 3).await;
    // A member that does not poll for 10 s would be put out of the group.
    let service = world.setup().set("kafka.properties.max.poll.interval.ms", 10_000).start().await;
    world.produce(&many(30_000)).await;
    world.at_rest().await;
    let (before, _) = service.memory();
    let (members, counted) = (assignments(&service), world.counted().await);

    let outage = async {
        postgres.crash().await;
        let gone = Instant::now();
        wait_until("it is not ready", seconds(5), async || service.probe("ready").await == Some(503)).await;
        assert_eq!(service.probe("live").await, Some(200));
        while gone.elapsed() < seconds(30) {
            refuses_reads(&service).await;
            tokio::time::sleep(seconds(1)).await;
        }
        let (during, _) = service.memory();
        postgres.start_again().await;
        wait_until("it is ready", seconds(5), async || service.probe("ready").await == Some(200)).await;
        world.has_counted(counted + 1000, seconds(10)).await;
        during
    };
    let (written, during) = world.topic().produce_during(created, outage).await;
    world.at_rest().await;
    assert_eq!(world.counted().await, counted + i64::try_from(written).unwrap());
    assert_eq!(world.quarantined().await, 0);
    assert_eq!(assignments(&service), members, "the group kept its member");
    let ((after, _), own) = (service.memory(), service.own_memory());
    let megabytes = [before, during, after, own].map(|bytes| bytes >> 20);
    let limit = before + (16 << 20);
    assert!(during < limit && after < limit && own < 48 << 20, "{megabytes:?} MB before, in, after, at most its own");
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn a_database_that_falls_silent_is_answered_for_within_3_s_and_waited_for() {
    let world = World::new(1).await;
    let proxy = Proxy::before(world.database.address()).await;
    let service = world.setup().set("database.url", world.database.url_through(proxy.port())).start().await;
    world.produce(&many(100)).await;
    world.has_counted(100, seconds(20)).await;
    proxy.hold();
    world.produce(&many(100)).await;
    refuses_reads(&service).await;
    proxy.pass();
    world.at_rest().await;
    assert_eq!((world.counted().await, world.quarantined().await), (200, 0));
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn a_database_that_is_absent_at_start_is_waited_for() {
    let world = World::new(1).await;
    world.produce(&many(10)).await;
    let proxy = Proxy::before(world.database.address()).await;
    proxy.refuse();
    let mut service = world.setup().set("database.url", world.database.url_through(proxy.port())).spawn();
    wait_until("it lives", seconds(5), async || service.probe("live").await == Some(200)).await;
    assert_eq!(service.probe("startup").await, Some(503));
    assert_eq!(service.probe("ready").await, Some(503));
    proxy.pass();
    service.ready().await;
    assert_eq!(service.probe("startup").await, Some(200));
    world.at_rest().await;
    assert_eq!(world.counted().await, 10);
    world.judge().await;
}

#[tokio::test]
async fn told_to_stop_while_the_database_is_away_it_stops_and_the_next_process_counts_what_was_left() {
    let world = World::new(1).await;
    let proxy = Proxy::before(world.database.address()).await;
    let mut service = world.setup().set("database.url", world.database.url_through(proxy.port())).start().await;
    world.produce(&many(100)).await;
    world.at_rest().await;
    proxy.refuse();
    world.produce(&many(100)).await;
    wait_until("it says so", seconds(10), async || service.has_logged("counting waits for the database")).await;
    service.terminate();
    assert_eq!(service.ended(seconds(15)).await.code(), Some(0));
    world.recount().no_offset_passes_the_database().await;
    assert_eq!(world.counted().await, 100);
    world.run_to_rest().await;
    assert_eq!((world.counted().await, world.quarantined().await), (200, 0));
    world.judge().await;
}

#[tokio::test]
async fn fewer_connections_than_it_wants_are_told_at_the_start() {
    let world = World::new(1).await;
    let limit = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I CONNECTION LIMIT 8', current_database()); END $$";
    world.database.execute(limit).await;
    let service = world.setup().start().await;
    wait_until("it says so", seconds(5), async || {
        service.has_logged("fewer connections are permitted than this instance wants")
    })
    .await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_nothing_counted().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_wants_no_traffic_while_no_request_gets_a_connection() {
    let world = World::new(1).await;
    // One of them is for requests.
    let service = world.setup().set("database.max_connections", 2).start().await;
    let mut lock = world.database.pool.begin().await.unwrap();
    let figures = "LOCK TABLE daily_activity_shards IN ACCESS EXCLUSIVE MODE";
    sqlx::raw_sql(figures).execute(&mut *lock).await.unwrap();
    let url = format!("{}/activities/2026-11-20", service.api());
    let reading = tokio::spawn(async move {
        for _ in 0..1000 {
            futures_util::future::join_all((0..4).map(|_| reqwest::get(&url))).await;
        }
    });
    wait_until("it wants none", seconds(20), async || service.probe("ready").await == Some(503)).await;
    lock.rollback().await.unwrap();
    reading.abort();
    wait_until("it wants some", seconds(10), async || service.probe("ready").await == Some(200)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_nothing_counted().await;
}
