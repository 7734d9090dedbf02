//! Settings that hold secrets, and every command that reads them. Of both services: each gives itself, without settings, and
//! a command that lists something.

use crate::{CANARY, Setup};

fn bare(program: &Setup) -> Setup {
    program
        .clone()
        .set("auth.mode", "disabled")
        .set("database.url", "postgres://clerk@127.0.0.1:1/db")
        .set("database.allow_plaintext", true)
}

async fn told(setup: &Setup, command: &str) -> (Option<i32>, String) {
    let arguments: Vec<_> = command.split(' ').collect();
    let done = setup.run(&arguments).await;
    let told = [done.stdout, done.stderr].concat();
    (done.status.code(), String::from_utf8(told).unwrap())
}

/// What is refused is refused without its value, by every command.
///
/// # Panics
/// It is not, or with its value.
pub async fn wrong_settings_are_named_without_their_values(program: &Setup, list: &str) {
    for (setting, value) in [
        ("database.url", format!("postgres://clerk@db/orders?sslpassword={CANARY}")),
        ("database.url", format!("postgres://clerk@db/orders?passwd={CANARY}")),
        ("database.url", format!("postgres://clerk:{CANARY}@db:x/orders")),
        ("database.url", format!("postgres://clerk:12/{CANARY}?x@db/orders")),
        ("database.url", format!("postgres://clerk:12#{CANARY}@db/orders")),
        ("database.url", format!("postgres://clerk:12#{CANARY}@db/orders?sslmode=verify-full")),
        ("database.url", format!("jdbc:postgresql://db/orders?password={CANARY}")),
        ("traces.otlp_endpoint", format!("http://collector:4318/v1/traces?key={CANARY}")),
        ("traces.otlp_endpoint", format!("http://clerk:{CANARY}@collector:4318/v1/traces")),
        ("traces.otlp_endpoint", format!("{CANARY}://collector")),
        ("auth.jwks_url", format!("https://clerk:{CANARY}@issuer.example/keys")),
        ("auth.jwks_url", format!("https://{CANARY}@issuer.example/keys")),
        ("http.public_url", format!("https://shop.example/?key={CANARY}")),
        ("http.public_url", format!("https://clerk:{CANARY}@shop.example")),
        ("http.cors.allowed_origins", format!("https://clerk:{CANARY}@shop.example/x")),
        ("http.cors.allowed_origins", format!("https://clerk:{CANARY}@shop.example")),
        ("kafka.brokers", format!("clerk:{CANARY}@broker:9092")),
        ("kafka.properties.sasl.kerberos.min.time.before.relogin", CANARY.to_owned()),
    ] {
        for command in ["config", "serve", "migrate", list] {
            let (code, told) = told(&bare(program).set(setting, &value), command).await;
            assert!(!told.contains(CANARY), "{command}: {told}");
            // Others need not look at what they do not use.
            if ["config", "serve"].contains(&command) {
                assert!(code == Some(2) && told.contains(setting), "{command} {setting}: {told}");
            }
        }
    }
    // Those of OpenTelemetry stand for a setting.
    for variable in ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] {
        let setup = bare(program).variable(variable, &format!("https://collector:4318/?key={CANARY}"));
        for command in ["config", "serve"] {
            let (code, told) = told(&setup, command).await;
            assert!(code == Some(2) && told.contains(variable) && !told.contains(CANARY), "{command}: {told}");
        }
    }
}

/// What is right is shown without what may be secret in it.
///
/// # Panics
/// It is not shown, or with a secret.
pub async fn settings_are_shown_without_secrets(program: &Setup) {
    for (setting, value, shown) in [
        ("database.url", format!("postgres://clerk:{CANARY}@db:5432/orders"), "db:5432/orders"),
        ("database.url", format!("postgres://clerk@db/orders?password={CANARY}"), "db/orders"),
        ("database.url", format!("postgres://clerk@db/orders?user={CANARY}"), "db/orders"),
        ("database.url", format!("postgres://clerk@db/orders?options=-c%20x.y={CANARY}"), "db/orders"),
        ("auth.jwks_url", format!("https://issuer.example/keys?code={CANARY}#{CANARY}"), "https://issuer.example/keys"),
        ("kafka.properties.sasl.password", CANARY.to_owned(), "***"),
        ("kafka.properties.sasl.username", CANARY.to_owned(), "***"),
        ("kafka.properties.sasl.kerberos.kinit.cmd", format!("kinit -p {CANARY}"), "***"),
        ("kafka.properties.ssl.key.password", CANARY.to_owned(), "***"),
        ("kafka.properties.ssl.keystore.password", CANARY.to_owned(), "***"),
    ] {
        let (code, told) = told(&bare(program).set(setting, &value), "config").await;
        assert_eq!(code, Some(0), "{setting}: {told}");
        assert!(told.contains(shown) && !told.contains(CANARY), "{setting}: {told}");
    }
}

/// Nor do the commands tell them when the database cannot be reached.
///
/// # Panics
/// One does.
pub async fn a_database_out_of_reach_is_told_of_without_its_password(program: &Setup, list: &str) {
    let url = format!("postgres://clerk:{CANARY}@127.0.0.1:1/db?options=-c%20x.y={CANARY}");
    for command in ["migrate", list] {
        let (code, told) = told(&bare(program).set("database.url", &url), command).await;
        assert_eq!(code, Some(1), "{command}: {told}");
        assert!(!told.contains(CANARY), "{command}: {told}");
    }
}
