//! What commands of both services have in common for whoever types them.

use std::time::{Duration, Instant};

use crate::{Database, Setup, server::free_port};

/// `program` has no settings, `list` is a command that lists something of `database`.
///
/// # Panics
/// A command is not as it should be.
pub async fn commands_are_kind(program: Setup, list: &[&str], database: &Database) {
    // Nothing but the address of the database: neither who may call nor where Kafka is.
    let with_database = program.clone().set("database.url", database.url());
    let listed = with_database.run(list).await;
    let told = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(listed.status.code(), Some(0), "{}", String::from_utf8_lossy(&listed.stderr));
    assert!(told.starts_with("There are no") && told.lines().count() == 1, "an empty list is a sentence: {told}");
    let unsettled = program.run(list).await;
    assert_eq!(String::from_utf8(unsettled.stderr).unwrap(), "database.url: is required\n");

    let port = free_port();
    let begun = Instant::now();
    let away = program.clone().set("database.url", format!("postgres://user:canary@127.0.0.1:{port}/away"));
    for command in [list, &["migrate"]] {
        let done = away.run(command).await;
        let told = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(1), "{told}");
        assert!(told.contains(&format!("127.0.0.1:{port}")) && told.contains("refused"), "{told}");
        assert!(told.lines().count() == 1 && !told.contains("canary"), "{told}");
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "5 s each: {:?}", begun.elapsed());

    for (command, begins) in [("man", ".ie"), ("completions", "_")] {
        let arguments: &[&str] = if command == "man" { &["man"] } else { &["completions", "bash"] };
        let done = program.run(arguments).await;
        let text = String::from_utf8(done.stdout).unwrap();
        assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
        assert!(text.starts_with(begins) && text.contains("migrate"), "{text}");
    }
    for command in [list, &["man"], &["completions", "zsh"], &["config"]] {
        let [(closed, _), (full, told)] = with_database.clone().set("auth.mode", "disabled").run_unread(command).await;
        assert_eq!((closed, full), (Some(0), Some(1)), "{command:?}: {told}");
        assert!(!told.contains("panicked") && told.contains("No space left"), "{command:?}: {told}");
    }
}
