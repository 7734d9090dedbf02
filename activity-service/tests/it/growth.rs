//! Tables that grow behind statistics, and plans, of when they were small.

use testing::wait_until;

use crate::world::{World, many, seconds};

const MESSAGES: usize = 5000;
/// What is read from the beginning of a table, of the small ones at that.
const READ_FOR_EACH: i64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_after_a_quiet_start_reads_no_table_from_its_beginning() {
    for counted_before in [0, 100, 10_000] {
        let world = World::new(4).await;
        let service = world.setup().set("consumer.batch_max_messages", 100).start().await;
        let mut counted = counted_before;
        world.produce(&many(counted_before)).await;
        world.has_counted(i64::try_from(counted).unwrap(), seconds(60)).await;
        // As autovacuum does within a minute.
        world.database.execute("ANALYZE").await;
        // Plans are made anew, with these statistics.
        world.produce(&many(100)).await;
        counted += 100;
        world.has_counted(i64::try_from(counted).unwrap(), seconds(60)).await;
        let read = "SELECT coalesce(sum(seq_tup_read), 0)::bigint FROM pg_stat_user_tables";
        let before = world.database.number(read).await;
        world.produce(&many(MESSAGES)).await;
        counted += MESSAGES;
        world.has_counted(i64::try_from(counted).unwrap(), seconds(60)).await;
        assert_eq!(service.stop().await, Some(0));
        // Backends write their statistics when they end.
        world.has_no_sessions().await;
        let inserted =
            "SELECT sum(n_tup_ins)::bigint FROM pg_stat_user_tables WHERE relname LIKE 'processed_messages%'";
        wait_until("the statistics have come", seconds(20), async || {
            world.database.number(inserted).await >= i64::try_from(counted).unwrap()
        })
        .await;
        let read = world.database.number(read).await - before;
        let bound = READ_FOR_EACH * i64::try_from(MESSAGES).unwrap();
        assert!(read < bound, "{read} rows are read for {MESSAGES} messages, analysed at {counted_before}");
        eprintln!("{read} rows read, analysed at {counted_before}");
        world.judge().await;
    }
}
