use std::time::Duration;

use proptest::prelude::*;

use super::*;

const DEFAULTS: &str = "[http]\nbind = \"0.0.0.0:8080\"\n[publisher]\nlinger = \"5ms\"\nmax_failures = 10\n";

fn reader(file: &str) -> Reader {
    let path = std::env::temp_dir().join(format!("settings-{}.toml", uuid::Uuid::now_v7()));
    std::fs::write(&path, file).unwrap();
    let reader = Reader::new(DEFAULTS, "NO_SUCH_SERVICE", Some(&path)).unwrap();
    std::fs::remove_file(path).unwrap();
    reader
}

#[test]
fn what_is_not_given_has_its_default() {
    let mut reader = reader("");
    assert_eq!(reader.get::<Duration>("publisher.linger"), Duration::from_millis(5));
    assert_eq!(reader.get::<u32>("publisher.max_failures"), 10);
    assert_eq!(reader.finish().unwrap().text, "[publisher]\nlinger = \"5ms\"\nmax_failures = 10\n");
}

#[test]
fn every_mistake_is_told_at_once_and_no_value_with_it() {
    let mut reader = reader("flavour = 1\n[publisher]\nlinger = \"soon\"\nmax_failures = 0\n");
    reader.get::<Duration>("publisher.linger");
    reader.within::<u32>("publisher.max_failures", 1.., "1 or more");
    reader.get::<Secret>("database.url");
    let told = reader.finish().unwrap_err();
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(!told.concat().contains("soon"));
}

#[test]
fn properties_keep_their_dots_and_hide_their_secrets() {
    let mut reader = reader("[kafka.properties]\n\"sasl.password\" = \"hunter2\"\nsecurity_protocol = \"SSL\"\n");
    let found = reader.properties("kafka.properties");
    assert_eq!(found["sasl.password"], "hunter2");
    assert_eq!(found["security.protocol"], "SSL");
    let shown = reader.finish().unwrap().text;
    assert!(shown.contains("\"security.protocol\" = \"SSL\"") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_connection_url_shows_where_but_not_who() {
    let url = Secret::parse("postgres://user:p%40ss@db.example:5432/orders?password=other").unwrap();
    assert_eq!(url.show().as_str(), Some("postgres://***@db.example:5432/orders"));
    assert_eq!(format!("{url:?}"), "***");
}

proptest! {
    #[test]
    fn a_duration_is_read_as_it_is_shown(millis in 0u64..10_000_000_000) {
        let duration = Duration::from_millis(millis);
        let shown = duration.show();
        prop_assert_eq!(Duration::parse(shown.as_str().unwrap()), Ok(duration));
    }

    #[test]
    fn no_text_makes_the_parsers_panic(text in ".*") {
        drop(Duration::parse(&text));
        drop(Vec::<String>::parse(&text));
        drop(Bind::parse(&text));
    }
}
