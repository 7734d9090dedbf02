use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rustix::process::Signal;

use crate::{server::Server, topic::client, wait_until};

/// A broker of a test's own, which it may stop and crash.
#[derive(Debug)]
pub struct Kafka(Server);

impl Kafka {
    pub async fn start() -> Self {
        let mut kafka = Self::absent().await;
        kafka.start_again().await;
        kafka
    }

    /// Not running yet, but with an address.
    pub async fn absent() -> Self {
        Self(Server::stopped("kafka").await)
    }

    #[must_use]
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.0.port)
    }

    /// Ends the broker in order.
    pub async fn stop(&mut self) {
        self.0.stop(Signal::TERM).await;
    }

    /// Kill -9.
    pub async fn crash(&mut self) {
        self.0.kill().await;
    }

    pub async fn start_again(&mut self) {
        self.0.start();
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
