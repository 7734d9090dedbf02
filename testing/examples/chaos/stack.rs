//! Everything that runs: Postgres, three brokers, three order-services and two activity-services, each behind a
//! proxy of its own to Postgres.

use std::time::{Duration, Instant};

use testing::{
    Checker, Client, Database, History, Kafka, Postgres, Proxy, Recount, Service, Setup, Topic, UNPUBLISHED, binary,
    wait_until,
};

use crate::{
    complete::Witness,
    faults::{Fault, Random},
};

/// Far above every promise: what takes longer has not recovered at all.
const PATIENCE: Duration = Duration::from_secs(90);

/// How long after a fault was mended things were as they should be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recovery {
    pub published: Duration,
    pub counted: Duration,
}

pub struct Stack {
    postgres: Postgres,
    brokers: [Kafka; 3],
    orders: Database,
    pub topic: Topic,
    pub history: History,
    pub client: Client,
    /// Of the figures.
    reader: Client,
    placing: Vec<Instance>,
    counting: Vec<Instance>,
    pub recount: Recount,
}

struct Instance {
    setup: Setup,
    proxy: Proxy,
    service: Option<Service>,
}

impl Instance {
    async fn new(setup: &Setup, database: &Database) -> Self {
        let proxy = Proxy::before(database.address()).await;
        let setup = setup.clone().set("database.url", database.url_through(proxy.port()));
        Self { service: Some(setup.start().await), setup, proxy }
    }

    fn service(&self) -> &Service {
        self.service.as_ref().expect("it runs")
    }

    async fn start_again(&mut self) {
        self.service = Some(self.setup.start().await);
    }
}

impl Stack {
    pub async fn start() -> Self {
        let (postgres, brokers) = tokio::join!(Postgres::start(), Kafka::three());
        let (orders, activity) = (Database::empty_on(&postgres).await, Database::empty_on(&postgres).await);
        let topic = Topic::unborn_at(brokers.each_ref().map(Kafka::brokers).join(","));
        // While two brokers are away, two of the partitions have no leader.
        topic.create_on(&[&[1, 2], &[2, 3], &[3, 1], &[2, 1], &[3, 2], &[1, 3]], &[]).await;
        let order_setup = Setup::new(binary("order-service"))
            .set("kafka.brokers", &topic.brokers)
            .set("kafka.topic", &topic.name)
            .set("kafka.replication", 3)
            .set("publisher.queue_capacity", 2000)
            .set("instance.takeover_after", "1s");
        let group = "activityservice";
        let activity_setup = Setup::new(binary("activity-service"))
            .set("kafka.brokers", &topic.brokers)
            .set("kafka.topics", &topic.name)
            .set("kafka.group_id", group);
        for (setup, database) in [(&order_setup, &orders), (&activity_setup, &activity)] {
            let done = setup.clone().set("database.url", database.owner_url()).run(&["migrate"]).await;
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        }
        let (mut placing, mut counting) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            placing.push(Instance::new(&order_setup, &orders).await);
        }
        for _ in 0..2 {
            counting.push(Instance::new(&activity_setup, &activity).await);
        }
        let history = History::default();
        let client = Client::new(placing[0].service().api(), &history);
        let reader = Client::new(counting[0].service().api(), &History::default());
        let recount = Recount { pool: activity.pool.clone(), topics: vec![topic.clone()], group: group.into() };
        let stack = Self { postgres, brokers, orders, topic, history, client, reader, placing, counting, recount };
        stack.route();
        stack
    }

    /// Sends the clients to those that run.
    fn route(&self) {
        self.client.route_to(self.placing.iter().filter_map(|one| Some(one.service.as_ref()?.api())));
        self.reader.route_to(self.counting.iter().filter_map(|one| Some(one.service.as_ref()?.api())));
    }

    /// Breaks something, mends it, and waits until what was on its way meanwhile has arrived.
    pub async fn suffer(&mut self, fault: Fault, random: &mut Random) -> Recovery {
        tokio::time::sleep(Duration::from_millis(random.below(400))).await;
        let a_while = Duration::from_millis(random.below(3000));
        match fault {
            Fault::KillOrders => {
                let index = random.index(self.placing.len());
                self.placing[index].service.take().unwrap().kill().await;
                self.route();
                let recovery = self.recovery().await;
                self.placing[index].start_again().await;
                self.route();
                return recovery;
            }
            Fault::KillActivity => {
                let index = random.index(self.counting.len());
                self.counting[index].service.take().unwrap().kill().await;
                self.route();
                let recovery = self.recovery().await;
                self.counting[index].start_again().await;
                self.route();
                return recovery;
            }
            Fault::CrashPostgres => {
                self.postgres.crash().await;
                tokio::time::sleep(a_while).await;
                self.postgres.start_again().await;
            }
            Fault::KillBroker => {
                let broker = &mut self.brokers[random.index(3)];
                broker.crash().await;
                tokio::time::sleep(a_while).await;
                broker.start_again().await;
            }
            Fault::KillTwoBrokers => {
                self.brokers.rotate_left(random.index(3));
                let [one, other, _] = &mut self.brokers;
                tokio::join!(one.crash(), other.crash());
                tokio::time::sleep(4 * a_while).await;
                tokio::join!(one.start_again(), other.start_again());
            }
            Fault::RestartBrokers => {
                for broker in &mut self.brokers {
                    broker.stop().await;
                    broker.start_again().await;
                    self.topic.in_sync(PATIENCE).await;
                }
            }
            Fault::Vanish => {
                let one = self.any(random);
                one.proxy.lose();
                tokio::time::sleep(4 * a_while).await;
                one.proxy.pass();
            }
            Fault::SwitchOver => {
                self.postgres.become_standby().await;
                tokio::time::sleep(a_while).await;
                self.postgres.promote().await;
            }
            Fault::HoldSnapshot => {
                let mut held = self.orders.pool.begin().await.unwrap();
                let snapshot = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT FROM orders LIMIT 1";
                sqlx::raw_sql(snapshot).execute(&mut *held).await.unwrap();
                tokio::time::sleep(4 * a_while).await;
                held.rollback().await.unwrap();
            }
            Fault::OffsetsAhead => {
                for one in &mut self.counting {
                    assert_eq!(one.service.take().unwrap().stop().await, Some(0), "it stops in order");
                }
                tokio::time::sleep(a_while).await;
                self.topic.commit(&self.recount.group, self.topic.ends().await[0]).await;
                for one in &mut self.counting {
                    one.start_again().await;
                }
                self.route();
            }
            Fault::ComeAndGo => {
                let mut held = self.recount.pool.begin().await.unwrap();
                sqlx::raw_sql("LOCK TABLE consumer_positions").execute(&mut *held).await.unwrap();
                let index = random.index(self.counting.len());
                let mut other = self.counting[index].setup.spawn();
                other.ready().await;
                tokio::time::sleep(a_while).await;
                other.terminate();
                tokio::time::sleep(a_while).await;
                held.rollback().await.unwrap();
                other.ended(PATIENCE).await;
            }
            Fault::Cut => {
                let one = self.any(random);
                one.proxy.refuse();
                tokio::time::sleep(a_while).await;
                one.proxy.pass();
            }
            Fault::Pause => {
                let one = self.any(random);
                one.service().pause();
                tokio::time::sleep(a_while).await;
                one.service().resume();
            }
            Fault::Stop => {
                let index = random.index(self.placing.len());
                let old = self.placing[index].service.take().unwrap();
                self.route();
                assert_eq!(old.stop().await, Some(0), "it stops in order");
                self.placing[index].start_again().await;
                self.route();
            }
        }
        self.recovery().await
    }

    fn any(&self, random: &mut Random) -> &Instance {
        let all: Vec<_> = self.placing.iter().chain(&self.counting).collect();
        all[random.index(all.len())]
    }

    /// How long it takes until what is unpublished now is published, and what is on the topic by then is counted.
    async fn recovery(&self) -> Recovery {
        let mended = Instant::now();
        let mut unpublished = None;
        wait_until("what was unpublished is published", PATIENCE, async || {
            if unpublished.is_none() {
                let rows = format!("SELECT message_ref FROM {UNPUBLISHED} AS m");
                unpublished = sqlx::query_scalar::<_, uuid::Uuid>(&rows).fetch_all(&self.orders.pool).await.ok();
            }
            let left = format!("SELECT count(*) FROM {UNPUBLISHED} AS m WHERE message_ref = ANY($1)");
            let left = sqlx::query_scalar::<_, i64>(&left).bind(&unpublished).fetch_one(&self.orders.pool).await;
            unpublished.is_some() && left.is_ok_and(|left| left == 0)
        })
        .await;
        let published = mended.elapsed();
        let ends = self.topic.ends().await;
        wait_until("what was announced is counted", PATIENCE, async || {
            let positions = "SELECT partition, next_offset FROM consumer_positions";
            let positions = sqlx::query_as::<_, (i32, i64)>(positions).fetch_all(&self.recount.pool).await;
            let positions = positions.unwrap_or_default();
            (0..)
                .zip(&ends)
                .all(|(partition, end)| *end == 0 || positions.iter().any(|one| one.0 == partition && one.1 >= *end))
        })
        .await;
        Recovery { published, counted: mended.elapsed() }
    }

    /// Who asks the counting services how far the figures are complete.
    pub fn witness(&self) -> Witness {
        Witness::new(self.reader.clone(), self.orders.pool.clone(), self.recount.pool.clone())
    }

    /// Waits until nothing is on its way any more, then stops the services in order: the most memory that one had.
    pub async fn come_to_rest(&mut self) -> u64 {
        let unpublished = format!("SELECT count(*) FROM {UNPUBLISHED} AS m");
        wait_until("everything is published", PATIENCE, async || self.orders.number(&unpublished).await == 0).await;
        self.recount.at_rest(PATIENCE).await;
        let mut most = 0;
        for one in self.placing.iter_mut().chain(&mut self.counting) {
            let service = one.service.take().unwrap();
            most = most.max(service.memory().1);
            assert_eq!(service.stop().await, Some(0), "it stops in order");
        }
        most
    }

    /// After kills and cuts messages may come twice, in the same bytes.
    pub fn checker(&self) -> Checker {
        Checker::new(&self.orders.pool, &self.topic, &self.history).duplicates_allowed()
    }

    /// Of the outbox.
    pub async fn messages(&self) -> i64 {
        self.orders.number("SELECT count(*) FROM outbox").await
    }

    pub async fn orders(&self) -> i64 {
        self.orders.number("SELECT count(*) FROM orders").await
    }
}
