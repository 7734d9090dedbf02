//! The pools of a service: what their sessions are told, and how long they last.

use shared::runtime::{config::Reader, database::Settings};
use testing::Database;
use uuid::Uuid;

const DEFAULTS: &str = "[database]\nmax_connections = 6\nallow_plaintext = false\n";

pub fn settings_of(database: &Database) -> Settings {
    let file = std::env::temp_dir().join(format!("{}.toml", Uuid::now_v7()));
    std::fs::write(&file, format!("[database]\nurl = \"{}\"\n", database.url())).unwrap();
    let settings = Settings::read(&mut Reader::new(DEFAULTS, "THINGS", Some(&file)).unwrap());
    std::fs::remove_file(file).unwrap();
    settings
}

#[tokio::test]
async fn a_request_is_ended_soon_work_after_a_while_and_a_command_never() {
    let database = Database::empty().await;
    let settings = settings_of(&database);
    let mut ends = Vec::new();
    for pool in [settings.request_pool("requests"), settings.pool("work"), settings.command_pool("command")] {
        let shown = sqlx::query_scalar::<_, String>("SHOW statement_timeout").fetch_one(&pool.unwrap()).await;
        ends.push(shown.unwrap());
    }
    assert_eq!(ends, ["2s", "10s", "0"]);
}

/// The HTTP server's workers have runtimes of their own, which end in the drain.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_connection_outlives_the_runtime_of_whoever_used_it_first() {
    let database = Database::empty().await;
    let pool = settings_of(&database).pool("work").unwrap();
    let backend = "SELECT pg_backend_pid()";
    let by_a_worker = {
        let pool = pool.clone();
        let worker = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(sqlx::query_scalar::<_, i32>(backend).fetch_one(&pool))
        });
        tokio::task::spawn_blocking(|| worker.join().unwrap()).await.unwrap().unwrap()
    };
    assert_eq!(sqlx::query_scalar::<_, i32>(backend).fetch_one(&pool).await.unwrap(), by_a_worker);
}
