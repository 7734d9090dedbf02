//! Tables that grow behind statistics, and plans, of when they were small.

use testing::wait_until;

use crate::world::{World, seconds};

const ORDERS: u64 = 3000;
/// What is read from the beginning of a table, of the small ones at that.
const READ_FOR_EACH: i64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_after_a_quiet_start_reads_no_table_from_its_beginning() {
    for orders_before in [0, 100, 10_000] {
        let world = World::new().await;
        let service = world.setup().start().await;
        let client = world.client(&service);
        client.load(orders_before, 32).await;
        world.at_rest(seconds(30)).await;
        // As autovacuum does within a minute.
        world.database.execute("ANALYZE").await;
        // Plans are made anew, with these statistics.
        client.load(100, 4).await;
        let read = "SELECT coalesce(sum(seq_tup_read), 0)::bigint FROM pg_stat_user_tables";
        let before = world.database.number(read).await;
        client.load(ORDERS, 32).await;
        let placed = i64::try_from(orders_before + 100 + ORDERS).unwrap();
        // As the service tells: asking the tables reads them.
        wait_until("all are announced", seconds(20), async || {
            service.metrics().await.sum("outbox_published_messages_total") >= placed as f64
        })
        .await;
        assert_eq!(service.stop().await, Some(0));
        // Backends write their statistics when they end.
        world.has_no_sessions().await;
        let inserted = "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'orders'";
        wait_until("the statistics have come", seconds(20), async || world.database.number(inserted).await >= placed)
            .await;
        let read = world.database.number(read).await - before;
        let bound = READ_FOR_EACH * i64::try_from(ORDERS).unwrap();
        let tables =
            "SELECT coalesce(string_agg(format('%s %s in %s scans', relname, seq_tup_read, seq_scan), ', '), '')
            FROM pg_stat_user_tables WHERE seq_tup_read > 1000";
        let tables: String = sqlx::query_scalar(tables).fetch_one(&world.database.pool).await.unwrap();
        assert!(read < bound, "{read} rows are read for {ORDERS} orders, analysed at {orders_before}: {tables}");
        world.judge().await;
    }
}
