//! Commands as people use them: with the settings they need, in pipes, and in shells.

use activity_service::app::MIGRATIONS;
use testing::{Database, Setup, binary, terminal};

#[tokio::test]
async fn commands_need_what_they_use_tell_what_is_wrong_and_bear_that_nobody_reads() {
    let database = Database::new(&MIGRATIONS).await;
    let (program, list) = (Setup::bare(binary("activity-service")), ["quarantine", "list"]);
    let others: [&[&str]; 2] = [&["figures", "verify"], &["calendar", "rename", "UTC"]];
    terminal::commands_are_kind(program, &list, &others, &database).await;
}

#[tokio::test]
async fn the_commands_that_the_documents_show_are_there() {
    terminal::what_documents_show_is_there(&Setup::bare(binary("activity-service")), "activity-service").await;
}
