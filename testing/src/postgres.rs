use std::{fs, time::Duration};

use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process},
};
use sqlx::{Connection, PgConnection};

use crate::{server::Server, wait_until};

/// A Postgres of a test's own, which it may stop and crash.
#[derive(Debug)]
pub struct Postgres(Server);

impl Postgres {
    pub async fn start() -> Self {
        let mut postgres = Self(Server::stopped("postgres").await);
        postgres.start_again().await;
        postgres
    }

    /// Whose clock is so far behind that of everybody else, as `-8d`.
    pub async fn with_clock(shift: &str) -> Self {
        let mut postgres = Self(Server::stopped("postgres").await);
        postgres.0.arguments = vec!["-t".to_owned(), shift.to_owned()];
        postgres.start_again().await;
        postgres
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}", self.0.port)
    }

    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.0.port)
    }

    /// Ends every session and the server, in order.
    pub async fn stop(&mut self) {
        self.0.stop(Signal::INT).await;
    }

    /// Kill -9 of the postmaster and of its backends, which would live on in process groups of
    /// their own.
    pub async fn crash(&mut self) {
        self.0.kill().await;
        let data = self.0.data();
        wait_until("every backend is gone", Duration::from_secs(10), async || {
            let left = processes_in(&data);
            left.iter().for_each(|pid| kill(*pid));
            left.is_empty()
        })
        .await;
    }

    pub async fn start_again(&mut self) {
        self.0.start();
        self.answers().await;
    }

    /// Stops it in order, and starts it as a standby that follows nobody.
    pub async fn become_standby(&mut self) {
        self.stop().await;
        fs::write(self.0.data().join("standby.signal"), "").unwrap();
        self.start_again().await;
    }

    /// Makes a primary of a standby, with a timeline of its own.
    pub async fn promote(&self) {
        let mut connection = PgConnection::connect(&format!("{}/postgres", self.url())).await.unwrap();
        let promoted: bool = sqlx::query_scalar("SELECT pg_promote()").fetch_one(&mut connection).await.unwrap();
        assert!(promoted);
    }

    /// From now on a connection of `role` needs its password.
    pub async fn ask_for_password(&self, role: &str) {
        let rules = format!("host all {role} 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n");
        fs::write(self.0.data().join("pg_hba.conf"), rules).unwrap();
        let mut connection = PgConnection::connect(&format!("{}/postgres", self.url())).await.unwrap();
        sqlx::query("SELECT pg_reload_conf()").execute(&mut connection).await.unwrap();
        // The postmaster reads it in its own time.
        let url = self.url().replace("postgres@", &format!("{role}@")) + "/postgres";
        wait_until("a password is asked for", Duration::from_secs(10), async || {
            PgConnection::connect(&url).await.is_err()
        })
        .await;
    }

    /// Starts a standby without which no transaction commits.
    pub async fn with_standby(&self) -> Standby {
        let mut standby = Server::beside("standby");
        standby.port = self.0.port;
        standby.start();
        self.wait_for_standby("standby").await;
        Standby(standby)
    }

    /// Starts a server that follows this one, has all that it has committed, and may be promoted.
    pub async fn follower(&self) -> Self {
        let mut follower = Self(Server::beside("postgres"));
        follower.0.arguments = vec!["-f".to_owned(), self.0.port.to_string()];
        follower.start_again().await;
        self.wait_for_standby("follower").await;
        follower
    }

    /// From now on nobody waits for `follower`, and it hears of nothing more.
    pub async fn cut_off(&self, follower: &Self) {
        let run = async |server: &Self, statements: [&str; 2]| {
            let mut connection = PgConnection::connect(&format!("{}/postgres", server.url())).await.unwrap();
            for statement in statements {
                sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
            }
            connection
        };
        run(self, ["ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()"]).await;
        let mut cut_off = run(follower, ["ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()"]).await;
        let follows = "SELECT EXISTS (SELECT FROM pg_stat_wal_receiver)";
        wait_until("it follows no more", Duration::from_secs(10), async || {
            !sqlx::query_scalar::<_, bool>(follows).fetch_one(&mut cut_off).await.unwrap()
        })
        .await;
    }

    /// This server is lost, and the other one, promoted, has its address.
    pub async fn is_replaced_by(&mut self, mut other: Self) {
        self.crash().await;
        other.stop().await;
        other.0.port = self.0.port;
        other.start_again().await;
        other.promote().await;
        *self = other;
    }

    /// From now on no transaction commits without the standby of that name.
    async fn wait_for_standby(&self, name: &str) {
        let mut connection = PgConnection::connect(&format!("{}/postgres", self.url())).await.unwrap();
        let wait = format!("ALTER SYSTEM SET synchronous_standby_names = '{name}'");
        for statement in [wait.as_str(), "SELECT pg_reload_conf()"] {
            sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
        }
        let follows = "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')";
        wait_until("the standby follows", Duration::from_secs(60), async || {
            sqlx::query_scalar(follows).fetch_one(&mut connection).await.unwrap()
        })
        .await;
    }

    async fn answers(&self) {
        let url = format!("{}/postgres", self.url());
        wait_until("Postgres answers", Duration::from_secs(60), async || PgConnection::connect(&url).await.is_ok())
            .await;
    }
}

/// A synchronous standby. While it is paused every COMMIT waits, whatever time-out is set and whether its client is there
/// or not.
#[derive(Debug)]
pub struct Standby(Server);

impl Standby {
    pub fn pause(&self) {
        self.0.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.0.signal(Signal::CONT);
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        processes_in(&self.0.data()).iter().for_each(|pid| kill(*pid));
    }
}

/// One that has ended since it was found needs it no more.
fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("it was found by its number");
    assert!(matches!(kill_process(pid, Signal::KILL), Ok(()) | Err(Errno::SRCH)), "a backend cannot be killed");
}

fn processes_in(folder: &std::path::Path) -> Vec<u32> {
    let Ok(folder) = folder.canonicalize() else { return Vec::new() };
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    all.filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == folder)).collect()
}
