//! What leaves the machine is encrypted, unless somebody has said that it need not be. Of both services: each gives itself,
//! without settings.

use crate::Setup;

/// The rule, the setting that breaks it, and what it takes to break it on purpose.
const IN_CLEAR: [(&str, &str, &str); 8] = [
    ("database.url", "postgres://clerk@db.example/orders", "database.allow_plaintext"),
    ("database.url", "postgres://clerk@db.example/orders?sslmode=disable", "database.allow_plaintext"),
    ("database.url", "postgres://clerk@db.example/orders?sslmode=prefer", "database.allow_plaintext"),
    ("database.url", "postgres://clerk@127.0.0.1/orders?host=10.0.0.7", "database.allow_plaintext"),
    ("kafka.brokers", "broker.example:9092", "kafka.allow_plaintext"),
    ("kafka.brokers", "localhost:9092,broker.example:9092", "kafka.allow_plaintext"),
    ("auth.jwks_url", "http://issuer.example/keys", "auth.allow_plaintext"),
    ("traces.otlp_endpoint", "http://collector.example:4318/v1/traces", "traces.allow_plaintext"),
];

/// With nothing that leaves the machine.
fn local(program: &Setup) -> Setup {
    program
        .clone()
        .set("auth.mode", "jwt")
        .set("auth.issuer", "https://issuer.example")
        .set("auth.audience", "shop")
        .set("auth.jwks_url", "http://localhost:9/keys")
        .set("database.url", "postgres://clerk@localhost:1/orders")
        .set("kafka.brokers", "127.0.0.1:9092,[::1]:9093")
        .set("traces.otlp_endpoint", "http://[::1]:4318/v1/traces")
}

/// What is told of the settings, to those who look at them; nothing runs with them then.
async fn told(setup: &Setup) -> String {
    let run = async |command| {
        let done = setup.run(&[command]).await;
        (done.status.code(), String::from_utf8(done.stderr).unwrap())
    };
    let (code, told) = run("config").await;
    assert_eq!(code, Some(0), "{told}");
    if !told.is_empty() {
        assert_eq!(run("serve").await, (Some(2), told.clone()));
    }
    told
}

/// With `further` rules, which the program has alone.
///
/// # Panics
/// Something goes in clear, or may not go where that is allowed.
pub async fn in_clear_is_refused_unless_allowed(program: &Setup, further: &[(&str, &str, &str)]) {
    let local = local(program);
    assert_eq!(told(&local).await, "");
    for &(setting, value, allowed_by) in IN_CLEAR.iter().chain(further) {
        let setup = local.clone().set(setting, value);
        let line = told(&setup).await;
        assert!(line.starts_with(&format!("{setting}: ")) && line.lines().count() == 1, "{value}: {line}");
        assert!(line.contains(&format!("set {allowed_by} = true")) && !line.contains("example"), "{line}");
        let migrated = setup.run(&["migrate"]).await.status.code();
        let is_of_migrate = allowed_by == "database.allow_plaintext";
        assert_eq!(migrated, Some(if is_of_migrate { 2 } else { 1 }), "{setting}: it needs the database alone");
        assert_eq!(told(&setup.set(allowed_by, true)).await, "");
    }
}

/// # Panics
/// It is refused.
pub async fn encrypted_or_local_is_taken(program: &Setup) {
    let local = local(program);
    for (setting, value) in [
        ("database.url", "postgres://clerk@db.example/orders?sslmode=require"),
        ("database.url", "postgres://clerk@db.example/orders?sslmode=verify-full"),
        ("database.url", "postgres://clerk@/orders?host=/var/run/postgresql"),
        ("auth.jwks_url", "https://issuer.example/keys"),
        ("traces.otlp_endpoint", "https://collector.example:4318/v1/traces"),
    ] {
        assert_eq!(told(&local.clone().set(setting, value)).await, "", "{value}");
    }
    // A URL without a host: the socket is where PGHOST says.
    let by_socket = local.clone().set("database.url", "postgres:///orders").variable("PGHOST", "/var/run/postgresql");
    assert_eq!(told(&by_socket).await, "");
    for (protocol, is_taken) in [("SSL", true), ("sasl_ssl", true), ("SASL_PLAINTEXT", false), ("plaintext", false)] {
        let setup = local
            .clone()
            .set("kafka.brokers", "broker.example")
            .set("kafka.properties.security.protocol", protocol)
            .set("kafka.properties.sasl.mechanism", "PLAIN")
            .set("kafka.properties.sasl.username", "clerk")
            .set("kafka.properties.sasl.password", "secret");
        assert_eq!(told(&setup).await.is_empty(), is_taken, "{protocol}");
    }
}

/// The variables of OpenTelemetry, and of libpq, say the same as settings.
///
/// # Panics
/// One is a way round.
pub async fn no_variable_is_a_way_round(program: &Setup) {
    let without =
        program.clone().set("auth.mode", "disabled").set("database.url", "postgres://clerk@localhost:1/orders");
    for variable in ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] {
        let setup = without.clone().variable(variable, "http://collector.example:4318");
        let line = told(&setup).await;
        assert!(line.starts_with(&format!("{variable}: must be a URL with https")), "{line}");
        assert_eq!(told(&setup.clone().set("traces.allow_plaintext", true)).await, "");
        // Nobody asks it then.
        assert_eq!(told(&setup.set("traces.otlp_endpoint", "http://127.0.0.1:4318")).await, "");
    }
    let remote = without.set("database.url", "postgres://clerk@db.example/orders");
    assert_eq!(told(&remote.clone().variable("PGSSLMODE", "verify-full")).await, "");
    assert_ne!(told(&remote.clone().variable("PGSSLMODE", "allow")).await, "");
    let elsewhere = remote.set("database.url", "postgres:///orders").variable("PGHOST", "db.example");
    assert_ne!(told(&elsewhere).await, "");
}
