use testing::{Setup, binary};

const URL: &str = "postgres://clerk:hunter2@db.example:5432/activity?password=hunter3&sslmode=require";

fn bare() -> Setup {
    Setup::bare(binary("activity-service"))
}

async fn refused(setup: &Setup, command: &str) -> Vec<String> {
    let done = setup.run(&[command]).await;
    let told = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(2), "{told}");
    told.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn each_mistake_has_a_line_and_the_exit_code_is_2() {
    let setup = bare()
        .set("database.url", "not a url")
        .set("database.max_connections", 0)
        .set("http.bind", "8081")
        .set("kafka.topics", "one,,two")
        .set("kafka.group_id", " ")
        .set("consumer.batch_max_messages", "many")
        .set("consumer.batch_max_wait", "50")
        .set("consumer.backoff_initial", "1m")
        .set("statistics.time_zone", "Mars/Olympus")
        .set("log.level", "=loud=")
        .set("shutdown.grace", "-1s")
        .set("consumer.colour", "red");
    for command in ["config", "serve"] {
        let mut told = refused(&setup, command).await;
        told.sort_unstable();
        let keys: Vec<_> = told.iter().map(|line| line.split(": ").next().unwrap()).collect();
        let expected = [
            "auth.audience",
            "auth.issuer",
            "auth.jwks_url, auth.jwks_file, auth.public_key_file",
            // Five seconds at most is less than a minute at least.
            "consumer.backoff_max",
            "consumer.batch_max_messages",
            "consumer.batch_max_wait",
            "consumer.colour",
            "database.max_connections",
            "database.url",
            "http.bind",
            "kafka.group_id",
            "kafka.topics",
            "log.level",
            "shutdown.grace",
            "statistics.time_zone",
        ];
        assert_eq!(keys, expected, "{told:?}");
    }
    // It needs the database only, and knows every name.
    let mut told = refused(&setup, "migrate").await;
    told.sort_unstable();
    let keys: Vec<_> = told.iter().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(keys, ["consumer.colour", "database.max_connections", "database.url"], "{told:?}");
}

#[tokio::test]
async fn without_authentication_only_if_told_so_and_never_without_a_database() {
    let told = refused(&bare(), "serve").await.join("\n");
    assert!(told.contains("auth.issuer: ") && told.contains("database.url: "), "{told}");
    let told = refused(&bare().set("auth.mode", "disabled"), "serve").await;
    assert!(told.len() == 1 && told[0].starts_with("database.url: "), "{told:?}");
}

/// Holds: No secret of activity-service is in its log or in what `config` shows.
#[tokio::test]
async fn the_settings_are_shown_without_their_secrets() {
    let setup = bare()
        .set("database.url", URL)
        .set("auth.mode", "disabled")
        .set("kafka.topics", "one, two")
        .set("kafka.properties.sasl.mechanism", "PLAIN")
        .set("kafka.properties.sasl.username", "waiter")
        .set("kafka.properties.sasl.password", "hunter4")
        .set("kafka.properties.security.protocol", "SASL_SSL");
    let done = setup.run(&["config"]).await;
    let shown = String::from_utf8(done.stdout).unwrap();
    assert_eq!(done.status.code(), Some(0));
    for text in ["db.example:5432/activity", "SASL_SSL", "batch_max_messages = 5000", "time_zone = \"UTC\"", "\"two\""]
    {
        assert!(shown.contains(text), "{text}: {shown}");
    }
    assert!(!shown.contains("hunter") && !shown.contains("clerk"), "{shown}");
}

#[tokio::test]
async fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("settings.toml");
    let text = "[consumer]\nbatch_max_wait = \"7ms\"\nbatch_max_messages = 3\n[auth]\nmode = \"disabled\"\n";
    std::fs::write(&file, text).unwrap();
    let setup = bare().set("database.url", URL).set("consumer.batch_max_messages", 4);
    let done = setup.run(&["--config", file.to_str().unwrap(), "config"]).await;
    let shown = String::from_utf8(done.stdout).unwrap();
    assert!(shown.contains("batch_max_wait = \"7ms\"") && shown.contains("batch_max_messages = 4"), "{shown}");

    std::fs::write(&file, "[consumer\nbatch_max_wait = \"hunter2\"\n").unwrap();
    let done = setup.run(&["--config", file.to_str().unwrap(), "config"]).await;
    let told = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(2));
    assert!(told.contains("line 1") && !told.contains("hunter"), "{told}");
}

#[tokio::test]
async fn an_unknown_argument_is_2_as_well_and_the_version_is_told() {
    for arguments in [&["frobnicate"][..], &["--frobnicate"], &["config", "extra"]] {
        assert_eq!(bare().run(arguments).await.status.code(), Some(2), "{arguments:?}");
    }
    let done = bare().run(&["--version"]).await;
    assert_eq!(done.status.code(), Some(0));
    assert!(String::from_utf8(done.stdout).unwrap().starts_with("activity-service "));
}

#[tokio::test]
async fn each_topic_is_a_name_and_named_once() {
    for topics in ["a,a", "^summ.[", "a,,b", ".."] {
        let told =
            refused(&bare().set("auth.mode", "disabled").set("database.url", URL).set("kafka.topics", topics), "serve")
                .await;
        assert!(told.len() == 1 && told[0].starts_with("kafka.topics: "), "{topics}: {told:?}");
    }
}

#[tokio::test]
async fn what_the_brokers_decide_and_what_several_instances_cannot_share_is_refused_with_the_reason() {
    let setup = bare()
        .set("database.url", URL)
        .set("auth.mode", "disabled")
        .set("kafka.properties.group.protocol", "consumer")
        .set("kafka.properties.group.instance.id", "one")
        .set("kafka.properties.session.timeout.ms", 10_000);
    let mut told = refused(&setup, "serve").await;
    told.sort_unstable();
    assert!(told[0].starts_with("kafka.properties.group.instance.id: cannot be set: all instances"), "{told:?}");
    assert!(told[1].starts_with("kafka.properties.session.timeout.ms: cannot be set with group.protocol"), "{told:?}");
    assert_eq!(told.len(), 2, "{told:?}");
}

#[tokio::test]
async fn properties_of_kafka_that_do_not_fit_together_are_refused_with_the_reason() {
    // Below what the service itself says of the session.
    const POLL: &[(&str, &str)] = &[("max.poll.interval.ms", "5000")];
    const FETCH: &[(&str, &str)] = &[("message.max.bytes", "2000000"), ("fetch.max.bytes", "1500000")];
    let home = tempfile::tempdir().unwrap();
    let no_certificate = home.path().join("ca.pem");
    std::fs::write(&no_certificate, "not a certificate").unwrap();
    let no_certificate = [("security.protocol", "SSL"), ("ssl.ca.location", no_certificate.to_str().unwrap())];
    for (properties, reason) in
        [(&no_certificate[..], "ssl.ca.location"), (POLL, "max.poll.interval.ms"), (FETCH, "fetch.max.bytes")]
    {
        let setup = bare().set("auth.mode", "disabled").set("database.url", URL);
        let wrong = |setup: Setup, (name, value): &(&str, &str)| setup.set(&format!("kafka.properties.{name}"), value);
        let told = refused(&properties.iter().fold(setup, wrong), "serve").await;
        let is_told = told.len() == 1 && told[0].starts_with("kafka.properties: ") && told[0].contains(reason);
        assert!(is_told, "{properties:?}: {told:?}");
    }
}

#[tokio::test]
async fn the_topic_of_progress_is_none_of_those_that_are_counted() {
    let setup = bare().set("auth.mode", "disabled").set("database.url", URL).set("kafka.topics", "one,two");
    let told = refused(&setup.set("kafka.progress_topic", "two"), "serve").await;
    assert!(told.len() == 1 && told[0].starts_with("kafka.progress_topic: must be none of kafka.topics"), "{told:?}");
}
