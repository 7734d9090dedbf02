use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer},
};
use rustix::process::Signal;
use tokio::process::Command;

use crate::{
    Proxy, Setup,
    requests::{self, Right},
    server::{Server, free_port},
    wait_until,
};

/// Makes a key with a certificate, or copies it: every Java has this, and one may choose when it began.
async fn keytool(store: &Path, arguments: &[&str]) {
    let done = Command::new("keytool")
        .args(arguments)
        .args(["-storetype", "PKCS12", "-storepass", "changeit", "-keystore"])
        .arg(store)
        .output();
    let done = done.await.unwrap();
    assert!(
        done.status.success(),
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
}

/// A broker of a test's own, which it may stop and crash.
#[derive(Debug)]
pub struct Kafka {
    server: Server,
    /// Where clients connect to.
    port: u16,
}

impl Kafka {
    pub async fn start() -> Self {
        let mut kafka = Self::absent().await;
        kafka.start_again().await;
        kafka
    }

    /// Not running yet, but with an address.
    pub async fn absent() -> Self {
        let server = Server::stopped("kafka").await;
        Self { port: server.port, server }
    }

    /// Reached by everybody through a proxy that knows its protocol.
    pub async fn behind_proxy() -> (Self, Proxy) {
        let mut kafka = Self::absent().await;
        let proxy = Proxy::before_kafka(format!("127.0.0.1:{}", kafka.server.port)).await;
        kafka.port = proxy.port();
        kafka.server.arguments.push(proxy.port().to_string());
        kafka.start_again().await;
        (kafka, proxy)
    }

    /// With a second address, where the user `service` needs this password.
    pub async fn asking_for_password(password: &str) -> Self {
        let mut kafka = Self::absent().await;
        std::fs::create_dir_all(kafka.guarded().parent().unwrap()).unwrap();
        std::fs::write(kafka.guarded(), format!("{} {password}\n", free_port())).unwrap();
        kafka.start_again().await;
        kafka
    }

    /// With an address for each certificate: of 127.0.0.1, expired, and of another host. None is signed by anybody else.
    pub async fn with_certificates() -> Self {
        let mut kafka = Self::absent().await;
        let home = kafka.home();
        std::fs::create_dir_all(&home).unwrap();
        let mut addresses = String::new();
        for (name, host, begins) in [
            ("GOOD", "ip:127.0.0.1", "-1d"),
            ("EXPIRED", "ip:127.0.0.1", "-30d"),
            ("OTHER", "dns:kafka.example", "-1d"),
        ] {
            writeln!(addresses, "{name} {}", free_port()).unwrap();
            let store = home.join(format!("{name}.p12"));
            let pair = ["-genkeypair", "-alias", "kafka", "-keyalg", "EC", "-dname", "CN=kafka", "-validity", "10"];
            let host = format!("san={host}");
            keytool(&store, &[&pair[..], &["-startdate", begins, "-ext", &host]].concat()).await;
            let copy = home.join(format!("{name}.pem"));
            keytool(&store, &["-exportcert", "-rfc", "-alias", "kafka", "-file", copy.to_str().unwrap()]).await;
        }
        std::fs::write(home.join("tls"), addresses).unwrap();
        kafka.start_again().await;
        kafka
    }

    /// A service that comes by the address with this certificate, and trusts that one.
    ///
    /// # Panics
    /// There is no such address.
    #[must_use]
    pub fn with_certificate(&self, setup: Setup, name: &str, trusts: &str) -> Setup {
        let addresses = std::fs::read_to_string(self.home().join("tls")).unwrap();
        let found = addresses.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        setup
            .set("kafka.brokers", format!("127.0.0.1:{}", found.trim()))
            .set("kafka.properties.security.protocol", "SSL")
            .set("kafka.properties.ssl.ca.location", self.home().join(format!("{trusts}.pem")).display())
    }

    /// From the next start on.
    ///
    /// # Panics
    /// It has asked for none so far.
    pub fn change_password(&self, password: &str) {
        let port = self.guarded_port();
        std::fs::write(self.guarded(), format!("{port} {password}\n")).unwrap();
    }

    /// Takes a right to a topic away from the user `service`; every other right to it stays.
    pub async fn take_away(&self, right: Right, topic: &str) {
        requests::take_away(&self.brokers(), right, topic).await;
    }

    /// Gives back what was taken away.
    pub async fn give_back(&self, right: Right, topic: &str) {
        requests::give_back(&self.brokers(), right, topic).await;
    }

    /// How many bytes a second the user `service` may read; none: as many as there are.
    pub async fn limit_reading(&self, bytes: Option<f64>) {
        requests::limit_reading(&self.brokers(), bytes).await;
    }

    /// A service that comes by the address which asks for a password, and has it in this file.
    ///
    /// # Panics
    /// There is no such address.
    #[must_use]
    pub fn with_password_file(&self, setup: Setup, file: &Path) -> Setup {
        setup
            .set("kafka.brokers", format!("127.0.0.1:{}", self.guarded_port()))
            .set("kafka.properties.security.protocol", "SASL_PLAINTEXT")
            .set("kafka.properties.sasl.mechanism", "PLAIN")
            .set("kafka.properties.sasl.username", "service")
            .set("kafka.properties.sasl.password_file", file.display())
    }

    fn guarded(&self) -> PathBuf {
        self.home().join("guarded")
    }

    fn home(&self) -> PathBuf {
        self.server.data().with_file_name("")
    }

    fn guarded_port(&self) -> String {
        let guarded = std::fs::read_to_string(self.guarded()).unwrap();
        guarded.split_whitespace().next().unwrap().to_owned()
    }

    #[must_use]
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// One more broker of the cluster, with the number 2. A partition that stands there alone has no leader
    /// while it is stopped.
    pub async fn second(&self) -> Self {
        let controller = self.server.data().with_file_name("controller.port");
        let controller = format!("127.0.0.1:{}", std::fs::read_to_string(controller).unwrap().trim());
        let mut server = Server::beside("kafka");
        server.arguments = vec![server.port.to_string(), controller, "2".to_owned()];
        let mut kafka = Self { port: server.port, server };
        kafka.start_again().await;
        kafka
    }

    /// A cluster of three brokers with the numbers 1 to 3, each of which is a controller as well: any one may be away.
    pub async fn three() -> [Self; 3] {
        let mut servers = [Server::stopped("kafka").await, Server::beside("kafka"), Server::beside("kafka")];
        let voters: Vec<_> = (1..=3).map(|number| format!("{number}@127.0.0.1:{}", free_port())).collect();
        for (number, server) in (1..).zip(&mut servers) {
            server.arguments = vec![server.port.to_string(), voters.join(","), format!("{number}")];
            server.start();
        }
        let three = servers.map(|server| Self { port: server.port, server });
        for one in &three {
            one.answers().await;
        }
        three
    }

    /// Ends the broker in order.
    pub async fn stop(&mut self) {
        self.server.stop(Signal::TERM).await;
    }

    /// Kill -9.
    pub async fn crash(&mut self) {
        self.server.kill().await;
    }

    pub async fn start_again(&mut self) {
        self.server.start();
        self.answers().await;
    }

    async fn answers(&self) {
        let brokers = self.brokers();
        wait_until("the broker answers", Duration::from_secs(90), async || {
            let consumer: BaseConsumer = client(&brokers).create().unwrap();
            let asked =
                move || consumer.fetch_metadata(None, Duration::from_secs(2)).is_ok_and(|m| !m.brokers().is_empty());
            tokio::task::spawn_blocking(asked).await.unwrap()
        })
        .await;
    }
}

pub(crate) fn client(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", "testing").set("enable.auto.commit", "false");
    config.set("message.max.bytes", "10000000").set("auto.offset.reset", "earliest");
    config.set_log_level(RDKafkaLogLevel::Emerg);
    config
}
