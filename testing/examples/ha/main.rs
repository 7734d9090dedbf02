//! What a highly available installation costs its callers while a part of it dies: both services twice, three brokers, a
//! primary and its synchronous standby behind one address. Under load the leader of most partitions is killed, then two of
//! the three brokers, then the primary. It is told for how long no order was accepted and how long a message took to be
//! announced and counted; and judged whether anything is lost, or announced twice where that may not be.

#![expect(clippy::unwrap_used, reason = "what fails here fails the measurement")]

use std::{
    fs,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use testing::{
    Checker, Client, Database, History, Kafka, Postgres, Proxy, Recount, Service, Setup, Topic, UNPUBLISHED, binary,
    wait_until,
};
use time::OffsetDateTime;
use tokio::{task::JoinSet, time::sleep};

/// Orders a second.
const RATE: u64 = 300;
const CALLERS: u64 = 30;
/// For how long it goes on after the fault.
const AFTERWARDS: Duration = Duration::from_secs(15);
const AWAY: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(120);
/// What the death of a leader may cost, in seconds, at this load.
const ANNOUNCED_WITHIN: f64 = 5.0;
const COUNTED_WITHIN: f64 = 8.0;

struct Stack {
    primary: Postgres,
    follower: Postgres,
    /// Before whichever of both is the primary.
    door: Proxy,
    brokers: [Kafka; 3],
    orders: Database,
    activity: Database,
    topic: Topic,
    history: History,
    client: Client,
    services: Vec<Service>,
    recount: Recount,
}

/// In seconds.
#[derive(Debug)]
struct Stall {
    /// The longest time in which no order was accepted.
    accepted: f64,
    /// The longest that a message took from its order to its acknowledgement.
    announced: f64,
    /// And to its figure.
    counted: f64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut stack = Stack::start().await;
    let (healthy, _) = stack.suffer(async |_| sleep(AFTERWARDS).await).await;
    let (leader, _) = stack.suffer(Stack::lose_leader).await;
    let (two, back) = stack.suffer(Stack::lose_two_brokers).await;
    let after_return = stack.settled_after(back).await;
    // The outcome of everything is known until here: nothing may come twice.
    let mut broken = stack.checker().broken().await;
    let (promotion, _) = stack.suffer(Stack::lose_primary).await;
    let (twice, lost): (Vec<_>, Vec<_>) =
        stack.checker().broken().await.into_iter().partition(|line| line.starts_with("twice"));
    broken.extend(lost);
    for (what, took, within) in
        [("announced", leader.announced, ANNOUNCED_WITHIN), ("counted", leader.counted, COUNTED_WITHIN)]
    {
        if took > within {
            broken.push(format!(
                "late: a message was {what} {took:.1} s after its order when a leader had died, {within} s at most"
            ));
        }
    }
    let figures = json!({
        "ordersPerSecond": RATE,
        "brokerSessionTimeoutSeconds": 2,
        "healthy": seconds(&healthy),
        "leaderKilled": seconds(&leader),
        "twoOfThreeBrokersAwayFor20Seconds": seconds(&two),
        "settledAfterTheirReturn": {"announced": after_return.0, "counted": after_return.1},
        "primaryKilledAndStandbyPromoted": seconds(&promotion),
        "announcedTwiceAfterThePromotion": twice.len(),
        "otherAnswers": stack.history.others(),
        "orders": stack.history.acknowledged().len(),
        "broken": broken,
    });
    // It judges by a panic.
    stack.end().await;
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/ha");
    fs::create_dir_all(&folder).unwrap();
    let text = serde_json::to_string_pretty(&figures).unwrap();
    fs::write(folder.join("figures.json"), &text).unwrap();
    println!("{text}\ntarget/ha/figures.json");
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn seconds(Stall { accepted, announced, counted }: &Stall) -> Value {
    json!({"nothingAccepted": accepted, "slowestAnnounced": announced, "slowestCounted": counted})
}

impl Stack {
    async fn start() -> Self {
        let (primary, brokers) = tokio::join!(Postgres::start(), Kafka::three());
        let follower = primary.follower().await;
        let door = Proxy::before(primary.address()).await;
        let (orders, activity) = (Database::empty_behind(&door).await, Database::empty_behind(&door).await);
        let topic = Topic::unborn_at(brokers.each_ref().map(Kafka::brokers).join(","));
        let replicas: [&[i32]; 6] = [&[1, 2, 3], &[2, 3, 1], &[3, 1, 2], &[1, 3, 2], &[2, 1, 3], &[3, 2, 1]];
        topic.create_on(&replicas, &[("min.insync.replicas", "2")]).await;
        let progress = format!("{}.progress", topic.name);
        let placing = Setup::new(binary("order-service"))
            .set("kafka.brokers", &topic.brokers)
            .set("kafka.topic", &topic.name)
            .set("kafka.progress_topic", &progress)
            .set("kafka.replication", 3)
            .set("database.url", orders.url());
        let group = "activityservice";
        let counting = Setup::new(binary("activity-service"))
            .set("kafka.brokers", &topic.brokers)
            .set("kafka.topics", &topic.name)
            .set("kafka.progress_topic", &progress)
            .set("kafka.group_id", group)
            .set("database.url", activity.url());
        for (setup, database) in [(&placing, &orders), (&counting, &activity)] {
            let done = setup.clone().set("database.url", database.owner_url()).run(&["migrate"]).await;
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        }
        let services =
            vec![placing.start().await, placing.start().await, counting.start().await, counting.start().await];
        let history = History::default();
        let client = Client::new(services[0].api(), &history);
        client.route_to(services[..2].iter().map(Service::api));
        let recount = Recount { pool: activity.pool.clone(), topics: vec![topic.clone()], group: group.into() };
        let stack =
            Self { primary, follower, door, brokers, orders, activity, topic, history, client, services, recount };
        stack.client.load(RATE, 8).await;
        stack.at_rest().await;
        stack
    }

    /// Puts it under load, breaks something, and waits until everything is announced and counted.
    async fn suffer<T>(&mut self, fault: impl AsyncFnOnce(&mut Self) -> T) -> (Stall, T) {
        let begun = self.now().await;
        let (go_on, accepted) = (Arc::new(AtomicBool::new(true)), Arc::new(Mutex::new(vec![Instant::now()])));
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (client, go_on, accepted) = (self.client.clone(), Arc::clone(&go_on), Arc::clone(&accepted));
            callers.spawn(async move {
                let mut turns = tokio::time::interval(Duration::from_millis(1000 * CALLERS / RATE));
                turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                while go_on.load(Ordering::Relaxed) {
                    turns.tick().await;
                    if client.place().await.is_ok_and(|answer| answer.status == 201) {
                        accepted.lock().unwrap().push(Instant::now());
                    }
                }
            });
        }
        let done = fault(self).await;
        go_on.store(false, Ordering::Relaxed);
        callers.join_all().await;
        self.at_rest().await;
        let mut accepted = std::mem::take(&mut *accepted.lock().unwrap());
        accepted.sort_unstable();
        let longest = accepted.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
        let announced = "SELECT max(extract(epoch FROM published_at - activity_at))::float8
            FROM outbox_messages WHERE activity_at > $1";
        let counted = "SELECT max(extract(epoch FROM processed_at - activity_at))::float8
            FROM processed_messages WHERE activity_at > $1";
        let stall = Stall {
            accepted: longest.as_secs_f64(),
            announced: ask(&self.orders, announced, begun).await,
            counted: ask(&self.activity, counted, begun).await,
        };
        println!("{stall:?}");
        (stall, done)
    }

    async fn lose_leader(&mut self) {
        sleep(Duration::from_secs(5)).await;
        let leader = usize::try_from(self.topic.leader().await).unwrap();
        self.brokers[leader - 1].crash().await;
        sleep(AFTERWARDS).await;
        self.brokers[leader - 1].start_again().await;
        self.topic.in_sync(PATIENCE).await;
    }

    /// Answers with when they were back.
    async fn lose_two_brokers(&mut self) -> OffsetDateTime {
        sleep(Duration::from_secs(5)).await;
        let [_, one, other] = &mut self.brokers;
        tokio::join!(one.crash(), other.crash());
        sleep(AWAY).await;
        tokio::join!(one.start_again(), other.start_again());
        let back = self.now().await;
        sleep(AFTERWARDS).await;
        self.topic.in_sync(PATIENCE).await;
        back
    }

    async fn lose_primary(&mut self) {
        sleep(Duration::from_secs(5)).await;
        self.primary.crash().await;
        self.follower.promote().await;
        self.door.lead_to(self.follower.address());
        sleep(AFTERWARDS).await;
    }

    /// How long after that moment what was written before it was announced, and counted, in seconds.
    async fn settled_after(&self, moment: OffsetDateTime) -> (f64, f64) {
        let announced = "SELECT extract(epoch FROM max(published_at) - $1)::float8
            FROM outbox_messages WHERE activity_at <= $1";
        let counted = "SELECT extract(epoch FROM max(processed_at) - $1)::float8
            FROM processed_messages WHERE activity_at <= $1";
        (ask(&self.orders, announced, moment).await, ask(&self.activity, counted, moment).await)
    }

    async fn at_rest(&self) {
        let unpublished = format!("SELECT count(*) FROM {UNPUBLISHED} AS m");
        wait_until("everything is announced", PATIENCE, async || self.orders.number(&unpublished).await == 0).await;
        self.recount.at_rest(PATIENCE).await;
    }

    /// By the clock of both databases, which are on one server.
    async fn now(&self) -> OffsetDateTime {
        sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&self.orders.pool).await.unwrap()
    }

    fn checker(&self) -> Checker {
        Checker::new(&self.orders.pool, &self.topic, &self.history)
    }

    async fn end(self) {
        for service in self.services {
            assert_eq!(service.stop().await, Some(0), "it stops in order");
        }
        self.recount.judge().await;
    }
}

async fn ask(database: &Database, question: &str, since: OffsetDateTime) -> f64 {
    sqlx::query_scalar(question).bind(since).fetch_one(&database.pool).await.unwrap()
}
