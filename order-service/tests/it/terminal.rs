//! Commands as people use them: with the settings they need, in pipes, and in shells.

use order_service::app::MIGRATIONS;
use testing::{Database, Setup, binary, terminal};

#[tokio::test]
async fn commands_need_what_they_use_tell_what_is_wrong_and_bear_that_nobody_reads() {
    let database = Database::new(&MIGRATIONS).await;
    let (program, list) = (Setup::bare(binary("order-service")), ["messages", "list"]);
    terminal::commands_are_kind(program, &list, &[&["messages", "retry", "--all"]], &database).await;
}

#[tokio::test]
async fn the_commands_that_the_documents_show_are_there() {
    terminal::what_documents_show_is_there(&Setup::bare(binary("order-service")), "order-service").await;
}
