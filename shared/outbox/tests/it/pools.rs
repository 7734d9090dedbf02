//! What the sessions of a service's pools are told.

use shared::runtime::{config::Reader, database::Settings};
use testing::Database;
use uuid::Uuid;

const DEFAULTS: &str = "[database]\nmax_connections = 6\nallow_plaintext = false\n";

#[tokio::test]
async fn a_request_is_ended_soon_work_after_a_while_and_a_command_never() {
    let database = Database::empty().await;
    let file = std::env::temp_dir().join(format!("{}.toml", Uuid::now_v7()));
    std::fs::write(&file, format!("[database]\nurl = \"{}\"\n", database.url())).unwrap();
    let settings = Settings::read(&mut Reader::new(DEFAULTS, "THINGS", Some(&file)).unwrap());
    std::fs::remove_file(file).unwrap();
    let mut ends = Vec::new();
    for pool in [settings.request_pool("requests"), settings.pool("work"), settings.command_pool("command")] {
        let shown = sqlx::query_scalar::<_, String>("SHOW statement_timeout").fetch_one(&pool.unwrap()).await;
        ends.push(shown.unwrap());
    }
    assert_eq!(ends, ["2s", "10s", "0"]);
}
