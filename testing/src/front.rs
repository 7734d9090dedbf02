//! HAProxy and nginx of Debian before two instances of a service, with the settings that docs/proxies.md gives, and load
//! through them while the instances are restarted one after the other.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    task::JoinSet,
};
use uuid::Uuid;

use crate::{
    Service, Setup, root,
    server::{free_port, print_tail, scratch},
    wait_until,
};

/// Requests that wait for an answer; beyond that none is sent.
const MOST_UNDER_WAY: usize = 400;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    Haproxy,
    Nginx,
}

/// One of them before two instances.
#[derive(Debug)]
pub struct Front {
    product: Product,
    home: TempDir,
    port: u16,
    _child: Child,
}

impl Front {
    /// Starts two instances, each on an address of the loopback network that no other test has, and the proxy before them.
    ///
    /// # Panics
    /// The proxy is not in the PATH, or does not start.
    pub async fn before(product: Product, setup: &Setup) -> (Self, Pair) {
        let api = free_port();
        let ports = [api, std::iter::repeat_with(free_port).find(|port| *port != api).expect("another one")];
        let random = Uuid::now_v7().into_bytes();
        let net = format!("127.{}.{}.", random[14], random[15]);
        let setups = ["11", "12"].map(|host| {
            let [api, management] = ports.map(|port| format!("{net}{host}:{port}"));
            let setup = setup.clone().set("http.bind", api).set("management.bind", management);
            // Five looks of HAProxy: those of the document are a second apart, and so is its delay of 3 s.
            setup.set("shutdown.readiness_delay", "1s")
        });
        let services = [Some(setups[0].start().await), Some(setups[1].start().await)];
        let (home, port) = (scratch(), free_port());
        let file = home.path().join("conf");
        std::fs::write(&file, product.settings(&net, ports, port, home.path().to_str().unwrap())).unwrap();
        let log = std::fs::File::create(home.path().join("log")).unwrap();
        let mut command = match product {
            Product::Haproxy => Command::new("haproxy"),
            Product::Nginx => Command::new("nginx"),
        };
        match product {
            Product::Haproxy => command.arg("-db").arg("-f").arg(&file),
            Product::Nginx => command.arg("-e").arg("stderr").arg("-p").arg(home.path()).arg("-c").arg(&file),
        };
        let child =
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).kill_on_drop(true).spawn();
        let child = child.unwrap_or_else(|_| panic!("{product:?} is in the PATH: run make test"));
        let front = Self { product, home, port, _child: child };
        let pair = Pair { setups, services };
        pair.have_work(&front).await;
        (front, pair)
    }

    /// Where callers ask: with the prefix that the proxy takes off.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/orders-api", self.port)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if std::thread::panicking() {
            print_tail(&format!("{:?}", self.product), &self.home.path().join("log"), 15);
        }
    }
}

impl Product {
    /// Those of the document, with the test's addresses.
    fn settings(self, net: &str, ports: [u16; 2], port: u16, home: &str) -> String {
        let document = std::fs::read_to_string(root().join("docs/proxies.md")).unwrap();
        let begin = match self {
            Self::Haproxy => "```haproxy\n",
            Self::Nginx => "```nginx\n",
        };
        let (_, settings) = document.split_once(begin).unwrap();
        let (settings, _) = settings.split_once("```").unwrap();
        let settings = settings.replace("10.0.0.", net);
        // With what stands before them, or a port that is put in might look like the other one.
        let settings = settings.replace(":8080", &format!(":{}", ports[0]));
        let settings = settings.replace("port 9080", &format!("port {}", ports[1]));
        match self {
            Self::Haproxy => {
                // Looked at more often, an answer still has the second that it has by the document.
                let settings = settings.replace("inter 1s", "inter 200ms");
                format!(
                    "{settings}\n    timeout check 1s\nfrontend callers\n    bind 127.0.0.1:{port}\n    default_backend orders\n"
                )
            }
            Self::Nginx => {
                let settings = settings.replace("listen 443 ssl", &format!("listen 127.0.0.1:{port}"));
                format!(
                    "daemon off; master_process off; pid {home}/pid; error_log stderr;
                    events {{ worker_connections 4096; }}
                    http {{
                        access_log off; client_body_temp_path {home}/body; proxy_temp_path {home}/proxy;
                        fastcgi_temp_path {home}/fastcgi; uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
                        {settings}
                    }}"
                )
            }
        }
    }
}

/// Two instances behind a proxy.
#[derive(Debug)]
pub struct Pair {
    setups: [Setup; 2],
    services: [Option<Service>; 2],
}

impl Pair {
    /// Stops and starts them in turn, each once the other one has work.
    ///
    /// # Panics
    /// One does not end with 0, or gets no work afterwards.
    pub async fn restart_in_turn(&mut self, times: usize) {
        for turn in 0..times {
            let at = turn % 2;
            let service = self.services[at].take().unwrap();
            assert_eq!(service.stop().await, Some(0));
            let started = self.setups[at].start().await;
            wait_until("it has work again", Duration::from_secs(60), async || requests(&started).await >= 20.0).await;
            self.services[at] = Some(started);
        }
    }

    /// Until the proxy has found both.
    async fn have_work(&self, front: &Front) {
        let client = reqwest::Client::new();
        wait_until("the proxy has found both", Duration::from_secs(60), async || {
            drop(client.get(format!("{}/openapi.json", front.url())).send().await);
            let [one, other] = self.services.each_ref().map(|service| requests(service.as_ref().unwrap()));
            one.await > 0.0 && other.await > 0.0
        })
        .await;
    }

    /// Ends both.
    ///
    /// # Panics
    /// One does not end with 0.
    pub async fn stop(self) {
        for service in self.services.into_iter().flatten() {
            assert_eq!(service.stop().await, Some(0));
        }
    }
}

/// Answered on the API port so far.
async fn requests(service: &Service) -> f64 {
    let scrape = service.metrics().await;
    let count = "http_server_request_duration_seconds_count";
    scrape.series.iter().filter(|(name, _)| name.starts_with(count)).map(|(_, value)| value).sum()
}

/// Sends 200 requests a second, whatever becomes of those before, until `work` is done. How many were sent.
///
/// # Panics
/// Half of them could not be, because too many waited for an answer.
pub async fn load_during<F: Future<Output = ()> + Send + 'static>(
    send: impl Fn() -> F,
    work: impl Future<Output = ()>,
) -> u32 {
    let mut under_way = JoinSet::new();
    let (mut sent, mut left_out) = (0, 0);
    let mut work = std::pin::pin!(work);
    let begun = Instant::now();
    loop {
        let due = Duration::from_millis(5) * (sent + left_out);
        tokio::select! {
            () = &mut work => break,
            () = tokio::time::sleep(due.saturating_sub(begun.elapsed())) => {}
        }
        while under_way.try_join_next().is_some() {}
        if under_way.len() < MOST_UNDER_WAY {
            under_way.spawn(send());
            sent += 1;
        } else {
            left_out += 1;
        }
    }
    under_way.join_all().await;
    assert!(sent > left_out, "{left_out} requests were left out, {sent} were sent");
    sent
}
