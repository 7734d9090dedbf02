use testing::{Setup, binary};

const URL: &str = "postgres://clerk:hunter2@db.example:5432/orders?password=hunter3&sslmode=require";

fn bare() -> Setup {
    Setup::bare(binary("order-service"))
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
        .set("http.bind", "8080")
        .set("kafka.partitions", "many")
        .set("kafka.properties.acks", 1)
        .set("kafka.properties.isolation.level", "read_uncommitted")
        .set("kafka.properties.message.timeout.ms", 300_000)
        .set("publisher.linger", "5")
        .set("publisher.backoff_initial", "1m")
        .set("publisher.max_failures", 0)
        .set("publisher.order", "newest")
        .set("retention.idempotency_keys", "1m")
        .set("retention.orders", "23h")
        .set("log.level", "=loud=")
        .set("shutdown.grace", "-1s")
        .set("publisher.colour", "red");
    for command in ["config", "serve"] {
        let mut told = refused(&setup, command).await;
        told.sort_unstable();
        let keys: Vec<_> = told.iter().map(|line| line.split(": ").next().unwrap()).collect();
        let expected = [
            "auth.audience",
            "auth.issuer",
            "auth.jwks_url, auth.jwks_file, auth.public_key_file",
            "database.max_connections",
            "database.url",
            "http.bind",
            "kafka.partitions",
            "kafka.properties.acks",
            "kafka.properties.isolation.level",
            "kafka.properties.message.timeout.ms",
            "log.level",
            "publisher.backoff_initial",
            "publisher.colour",
            "publisher.linger",
            "publisher.max_failures",
            "publisher.order",
            "retention.idempotency_keys",
            "retention.orders",
            "shutdown.grace",
        ];
        assert_eq!(keys, expected, "{told:?}");
    }
    // It needs the database only, and knows every name.
    let mut told = refused(&setup, "migrate").await;
    told.sort_unstable();
    let keys: Vec<_> = told.iter().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(keys, ["database.max_connections", "database.url", "publisher.colour"], "{told:?}");
}

#[tokio::test]
async fn what_is_wrong_with_the_url_of_a_database_is_said_without_its_parts() {
    for (url, told) in [
        ("jdbc:postgresql://canary:canary@db/orders", "must be a URL like"),
        ("mysql://canary:canary@db/orders", "must be a URL like"),
        ("postgres://canary:canary@one:5432,two:5432/orders", "names several hosts"),
        ("postgres://canary:canary@/orders?host=one,two&sslmode=require", "names several hosts"),
        ("postgres://canary:canary@/orders?host=one%2Ctwo&sslmode=require", "names several hosts"),
        ("postgres://canary:canary@one%2ctwo/orders?sslmode=require", "names several hosts"),
        ("postgres://canary:canary@db/orders?sslpassword=canary", "has a parameter that is not known"),
        ("postgres://canary:canary@db/orders?canary", "has a parameter that is not known"),
        ("postgres://canary:canary@db", "names no database"),
        ("postgres://canary:canary@db/", "names no database"),
        ("postgres://canary:canary@db:canary/orders", "must be a URL like"),
    ] {
        for command in ["config", "serve", "migrate"] {
            let setup = bare().set("auth.mode", "disabled").set("database.url", url);
            let lines = refused(&setup, command).await;
            assert!(lines.len() == 1 && lines[0].starts_with(&format!("database.url: {told}")), "{url}: {lines:?}");
            assert!(!lines[0].contains("canary"), "{lines:?}");
        }
    }
    let without_host = bare().set("auth.mode", "disabled").set("database.url", "postgres:///orders?sslmode=require");
    let lines = refused(&without_host.variable("PGHOST", "one,two"), "config").await;
    assert!(lines.len() == 1 && lines[0].starts_with("database.url: names several hosts"), "{lines:?}");
    // As libpq takes it, too: by a socket.
    let url = "postgresql://clerk@/orders?host=/tmp";
    let done = bare().set("auth.mode", "disabled").set("database.url", url).run(&["config"]).await;
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test]
async fn what_kafka_would_never_understand_is_2_before_anything_starts() {
    for (setting, value) in [
        ("kafka.brokers", "host:99999"),
        ("kafka.brokers", "http://host:9092"),
        ("kafka.brokers", "a b"),
        ("kafka.brokers", "host:9092,"),
        ("kafka.brokers", "host:9092:9093"),
        ("kafka.topic", "^summ.["),
        ("kafka.topic", ".."),
        ("kafka.properties.session.timeout.ms", "abc"),
        ("kafka.properties.no.such.property", "1"),
        ("kafka.properties.ssl.ca.location", "/no/such/file"),
    ] {
        let setup = bare().set("auth.mode", "disabled").set("database.url", URL).set(setting, value);
        let told = refused(&setup, "serve").await;
        assert!(told.len() == 1 && told[0].starts_with(&format!("{setting}: ")), "{told:?}");
        assert!(!told[0].contains(value), "{told:?}");
    }
    for brokers in ["one:9092,two:9092", "[::1]:9092", "one"] {
        let setup = bare().set("auth.mode", "disabled").set("database.url", URL).set("kafka.brokers", brokers);
        let setup = setup.set("kafka.properties.security.protocol", "ssl");
        assert_eq!(setup.run(&["config"]).await.status.code(), Some(0), "{brokers}");
    }
}

#[tokio::test]
async fn properties_of_kafka_that_do_not_fit_together_are_refused_with_the_reason() {
    const KERBEROS: &[(&str, &str)] = &[("security.protocol", "SASL_SSL")];
    const NOBODY: &[(&str, &str)] = &[("security.protocol", "SASL_SSL"), ("sasl.mechanism", "PLAIN")];
    // A message that is sent once is one of so many on their way.
    const FLIGHT: &[(&str, &str)] = &[("max.in.flight", "10")];
    for (properties, reason) in [(KERBEROS, "GSSAPI"), (NOBODY, "sasl.username"), (FLIGHT, "max.in.flight")] {
        let setup = bare().set("auth.mode", "disabled").set("database.url", URL);
        let wrong = |setup: Setup, (name, value): &(&str, &str)| setup.set(&format!("kafka.properties.{name}"), value);
        let told = refused(&properties.iter().fold(setup, wrong), "serve").await;
        let is_told = told.len() == 1 && told[0].starts_with("kafka.properties: ") && told[0].contains(reason);
        assert!(is_told, "{properties:?}: {told:?}");
    }
}

#[tokio::test]
async fn an_empty_variable_counts_as_unset() {
    let setup = bare().set("auth.mode", "disabled").set("database.url", URL);
    let setup = setup.variable("ORDER_SERVICE__KAFKA__TOPIC", "").variable("DATABASE_URL", "");
    let done = setup.run(&["config"]).await;
    let shown = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.code() == Some(0) && shown.contains("summarisation.order"), "{shown}");
}

#[tokio::test]
async fn without_authentication_only_if_told_so_and_never_without_a_database() {
    let told = refused(&bare(), "serve").await.join("\n");
    assert!(told.contains("auth.issuer: ") && told.contains("database.url: "), "{told}");
    let told = refused(&bare().set("auth.mode", "disabled"), "serve").await;
    assert!(told.len() == 1 && told[0].starts_with("database.url: "), "{told:?}");
}

/// Holds: No secret of order-service is in its log or in what `config` shows.
#[tokio::test]
async fn the_settings_are_shown_without_their_secrets() {
    let setup = bare()
        .set("database.url", URL)
        .set("auth.mode", "disabled")
        .set("kafka.properties.sasl.mechanism", "PLAIN")
        .set("kafka.properties.sasl.username", "waiter")
        .set("kafka.properties.sasl.password", "hunter4")
        .set("kafka.properties.security.protocol", "SASL_SSL");
    let done = setup.run(&["config"]).await;
    let shown = String::from_utf8(done.stdout).unwrap();
    assert_eq!(done.status.code(), Some(0));
    assert!(
        shown.contains("db.example:5432/orders") && shown.contains("SASL_SSL") && shown.contains("max_failures = 10"),
        "{shown}"
    );
    assert!(!shown.contains("hunter") && !shown.contains("clerk"), "{shown}");
}

#[tokio::test]
async fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("settings.toml");
    std::fs::write(&file, "[publisher]\nlinger = \"7ms\"\nmax_failures = 3\n[auth]\nmode = \"disabled\"\n").unwrap();
    let setup = bare().set("database.url", URL).set("publisher.max_failures", 4);
    let done = setup.run(&["--config", file.to_str().unwrap(), "config"]).await;
    let shown = String::from_utf8(done.stdout).unwrap();
    assert!(shown.contains("linger = \"7ms\"") && shown.contains("max_failures = 4"), "{shown}");

    std::fs::write(&file, "[publisher\nlinger = \"hunter2\"\n").unwrap();
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
    assert!(String::from_utf8(done.stdout).unwrap().starts_with("order-service "));
}

#[tokio::test]
async fn partitions_that_do_not_follow_the_key_and_more_in_sync_than_there_are_replicas_are_refused() {
    let setup = bare()
        .set("database.url", URL)
        .set("auth.mode", "disabled")
        .set("kafka.replication", 2)
        .set("kafka.min_insync_replicas", 3)
        .set("kafka.properties.partitioner", "random");
    let mut told = refused(&setup, "serve").await;
    told.sort_unstable();
    let rules = [
        "kafka.min_insync_replicas: must be from 1 to kafka.replication",
        "kafka.properties.partitioner: must be one of",
    ];
    for (line, rule) in told.iter().zip(rules) {
        assert!(line.starts_with(rule), "{told:?}");
    }
    assert_eq!(told.len(), 2, "{told:?}");
}

#[tokio::test]
async fn what_would_break_a_promise_is_refused_and_the_reason_said() {
    for (setting, value, reason) in [
        ("retention.published_messages", "0s", "from 1d to 36500d: for a day a placement of unknown outcome"),
        ("retention.published_messages", "23h", "from 1d"),
        ("retention.published_messages", "36501d", "to 36500d"),
        ("partitions.every", "61m", "from 1ms to 1h"),
        ("publisher.outage_backoff_max", "4s", "sending resumes within 5s"),
        ("publisher.linger", "61s", "at most 1m"),
        ("kafka.properties.reconnect.backoff.max.ms", "2001", "sending resumes within 5s"),
        ("kafka.properties.retry.backoff.ms", "2001", "sending resumes within 5s"),
        ("kafka.properties.retry.backoff.max.ms", "2001", "sending resumes within 5s"),
        ("kafka.properties.fetch.error.backoff.ms", "2001", "sending resumes within 5s"),
        ("kafka.properties.fetch.queue.backoff.ms", "2001", "sending resumes within 5s"),
        ("instance.takeover_after", "11m", "from 500ms to 10m"),
        ("health.task_hung_after", "4s", "5s or longer"),
        ("placement.batch_max_orders", "1001", "from 1 to 1000"),
        ("retention.batch_size", "100001", "from 1 to 100000"),
        ("cell.count", "0", "from 1 to 1000"),
        ("cell.count", "1001", "from 1 to 1000"),
        ("cell.number", "0", "from 1 to cell.count"),
        ("cell.number", "2", "from 1 to cell.count"),
    ] {
        let setup = bare().set("auth.mode", "disabled").set("database.url", URL).set(setting, value);
        let told = refused(&setup, "serve").await;
        let is_told = told.len() == 1 && told[0].starts_with(&format!("{setting}: ")) && told[0].contains(reason);
        assert!(is_told, "{setting} = {value}: {told:?}");
    }
}

#[tokio::test]
async fn properties_on_which_promises_rest_are_refused_and_the_promise_said() {
    let names = [
        "acks",
        "allow.auto.create.topics",
        "auto.offset.reset",
        "batch.num.messages",
        "bootstrap.servers",
        "delivery.report.only.error",
        "delivery.timeout.ms",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.idempotence",
        "enable.partition.eof",
        "group.id",
        "group.instance.id",
        "linger.ms",
        "message.send.max.retries",
        "message.timeout.ms",
        "metadata.broker.list",
        "partition.assignment.strategy",
        "queue.buffering.backpressure.threshold",
        "queue.buffering.max.kbytes",
        "queue.buffering.max.messages",
        "queue.buffering.max.ms",
        "request.required.acks",
        "retries",
        "statistics.interval.ms",
        "transactional.id",
    ];
    let setup = bare().set("auth.mode", "disabled").set("database.url", URL);
    let setup = names.iter().fold(setup, |setup, name| setup.set(&format!("kafka.properties.{name}"), 1));
    let mut told = refused(&setup, "serve").await;
    told.sort_unstable();
    assert_eq!(told.len(), names.len(), "{told:?}");
    for (name, line) in names.iter().zip(&told) {
        let why = line.strip_prefix(&format!("kafka.properties.{name}: cannot be set: "));
        assert!(why.is_some_and(|why| !why.is_empty()), "{name}: {line}");
    }
}
