//! Starting: an identity is taken, then the tasks run that a message passes through. Each is fed by a channel from the one
//! before it and ends when that channel closes: last of all the session, without whose confirmations nothing is sent.

use std::time::Duration;

use shared::{
    operators::management::exposition::Exposition,
    runtime::{
        database::{self, Pool, Tables},
        health::TaskStatus,
        kafka::topics::Watch,
        lifecycle::{Exit, Shutdown, Tasks},
    },
};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    flight::Flight,
    instance::{Instance, session::Session},
    partitions::{self, Partitions},
    progress::{Progress, announcer::Announcer},
    publisher::{Channels, Lanes, Publisher, marks::Marks},
    queue::Queue,
    reload::Reloader,
    retention::Retention,
    settings::Settings,
    transaction::{self, Transactions},
};

/// What handing over at the end may take, on top of `shutdown.grace`.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(1);

/// What is done with the tables of the outbox.
const NEEDED: [(&str, &str); 16] = [
    ("announced", "SELECT, INSERT, DELETE"),
    ("counted_logs", "SELECT, INSERT, UPDATE, DELETE"),
    ("drop_outbox_partition", "EXECUTE"),
    ("drop_published_partition", "EXECUTE"),
    ("instances", "SELECT, INSERT, UPDATE, DELETE"),
    ("log_progress", "SELECT, INSERT, DELETE"),
    ("make_partitions", "EXECUTE"),
    ("message_counts", "SELECT, INSERT, UPDATE, DELETE"),
    ("outbox", "SELECT, INSERT"),
    ("pause", "SELECT"),
    ("published", "SELECT, INSERT"),
    ("rebroadcasts", "SELECT, INSERT, UPDATE, DELETE"),
    ("rejected_messages", "SELECT, INSERT, DELETE"),
    ("rejected_messages (state, failures, last_error, rejected_at, retry_at, holder)", "UPDATE"),
    ("rejections", "SELECT, INSERT, DELETE"),
    ("told_counts", "SELECT, UPDATE"),
];

/// The database of a service.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    pub tables: Tables,
    /// What is done with its own tables, beside those of the outbox.
    pub needed: &'static [(&'static str, &'static str)],
}

/// An identity was taken; nothing runs yet.
#[derive(Debug)]
pub struct Begun {
    settings: Settings,
    pool: Pool,
    flight: Flight,
    session: Session,
    instance: Instance,
    topics: Watch,
}

/// Waiting does not help, but somebody who does something about it.
#[derive(Debug)]
pub struct Unfit {
    exit: Exit,
    /// None: the operator is told already.
    why: Option<String>,
}

impl Unfit {
    /// Logs why; how the process is to end.
    #[must_use]
    pub fn log(self) -> Exit {
        if let Some(why) = self.why {
            tracing::error!("{why}");
        }
        self.exit
    }
}

/// The pools of a service.
#[derive(Clone, Copy, Debug)]
pub struct Pools<'a> {
    /// On which the work is done.
    pub work: &'a Pool,
    /// Of which one connection is needed, once.
    pub requests: &'a Pool,
}

/// Looks at the topic, waits for the database and takes an identity.
///
/// # Errors
/// See [`Unfit`].
pub async fn begin(
    settings: &Settings,
    database: &database::Settings,
    pools: Pools<'_>,
    schema: Schema,
    status: TaskStatus,
) -> Result<Begun, Unfit> {
    let (pool, requests) = (pools.work, pools.requests);
    let flight = Flight::new(settings.publisher.max_in_flight);
    let topic = &settings.topic;
    let topics = match Watch::begin(&settings.kafka, vec![topic.name.clone()], topic.expected.clone()).await {
        Ok(Ok(watch)) => watch,
        Ok(Err(exit)) => return Err(Unfit { exit, why: None }),
        Err(error) => return Err(Unfit { exit: Exit::Failed, why: Some(format!("{error:#}")) }),
    };
    let wrong_settings = |why: String| Ok(Err(Unfit { exit: Exit::WrongSettings, why: Some(why) }));
    let attempt = async || {
        if let Some(why) = unfit_for_poolers(settings, database).await? {
            return wrong_settings(why);
        }
        if let Some(found) = database::shortcoming(requests, &schema.tables).await? {
            return wrong_settings(format!("database.url: {found}"));
        }
        // The first connections are one for requests and the session's: the work takes what is left.
        if !database::schema_fits(requests, schema.tables.migrations).await? {
            let why = format!("the schema is older than this version needs: run {} migrate", settings.service.name);
            return Ok(Err(Unfit { exit: Exit::OldSchema, why: Some(why) }));
        }
        database::may_work(requests, &[schema.needed, &NEEDED].concat()).await?;
        let (session, instance) = Session::begin(settings.session.clone(), pool.clone(), flight.clone()).await?;
        database::compare_limits(requests, database.max_connections + 1).await?;
        Ok(Ok((session, instance)))
    };
    for pause in database::backoff() {
        match attempt().await {
            Ok(taken) => {
                status.ok();
                let ((session, instance), settings, pool) = (taken?, settings.clone(), pool.clone());
                partitions::prepare(requests, &instance, &status).await;
                return Ok(Begun { settings, pool, flight: flight.clone(), session, instance, topics });
            }
            Err(error) => {
                let error: sqlx::Error = error;
                status.failing(&error, "waiting for the database");
            }
        }
        tokio::time::sleep(pause).await;
    }
    unreachable!("the back-off never ends")
}

/// What a pooler in between takes away, if it does.
async fn unfit_for_poolers(settings: &Settings, database: &database::Settings) -> Result<Option<String>, sqlx::Error> {
    let application = format!("{} start", settings.service.name);
    if !database::is_session(&settings.session.address, &application).await? {
        let why = "database.session_url: leads to a pooler that lends a session for one transaction at a time, but the \
                   session's lock has to last: give a URL that leads to Postgres directly";
        return Ok(Some(why.to_owned()));
    }
    let unfit = database.unfit_pooler().await?;
    Ok(unfit.map(|why| format!("database.url: {why}")))
}

impl Begun {
    /// Tells of progress once, before anything is written: who counts knows then that there is this source. Waits for Kafka,
    /// unless another instance of the database has told (`is_told`); false where the drain begins before.
    ///
    /// # Errors
    /// librdkafka refuses its settings.
    pub async fn tell(
        &self,
        is_told: impl AsyncFn() -> bool,
        shutdown: &Shutdown,
        status: &TaskStatus,
    ) -> anyhow::Result<bool> {
        let announcer = Announcer::new(&self.settings, self.pool.clone(), self.instance.clone())?;
        Ok(announcer.tell_once(is_told, shutdown, status).await)
    }

    /// Gives the identity back, where nothing is to be started.
    pub async fn end(self) {
        HandOver { pool: self.pool, instance: self.instance }.end().await;
    }

    /// Starts everything between the queue and Kafka. It ends, in the drain, once everybody has dropped the queue; what is
    /// left then is handed over by the second.
    ///
    /// # Errors
    /// librdkafka refuses its settings.
    pub fn start(self, tasks: &mut Tasks, exposition: &Exposition) -> anyhow::Result<(Queue, HandOver)> {
        let Self { settings, pool, flight, session, instance, topics } = self;
        // The session outlives the drain: without its confirmations nothing is handed over.
        let drained = CancellationToken::new();
        let reach = session.reach();
        tasks.spawn("session", {
            let drained = drained.clone();
            |_, status| session.run(drained, status)
        });
        let (queue, queued) =
            Queue::new(settings.publisher.queue_capacity, settings.publisher.is_strict, instance.clone());
        let (answers, answered) = mpsc::unbounded_channel();
        let (returns, returned) = mpsc::unbounded_channel();
        let lanes = Lanes::new(&settings);
        exposition.at_scrape(queue.gauges());
        exposition.at_scrape(flight.gauges());
        tasks.spawn("topics", |shutdown, status| topics.run(shutdown, status));
        tasks.spawn("publisher", {
            let (settings, instance, lanes) = (settings.clone(), instance.clone(), lanes.clone());
            let channels = Channels { queue: queued, answers, returned };
            |shutdown, status| async move {
                Publisher::new(&settings, channels, flight, instance, lanes, reach, status)?.run(shutdown).await
            }
        });
        tasks.spawn("progress", {
            let (progress, drained) = (Progress { pool: pool.clone(), instance: instance.clone() }, drained.clone());
            |_, status| progress.run(drained, status)
        });
        tasks.spawn("announcer", {
            let announcer = Announcer::new(&settings, pool.clone(), instance.clone())?;
            |shutdown, status| announcer.run(shutdown, status)
        });
        tasks.spawn("marks", {
            let (pool, settings, instance) = (pool.clone(), settings.publisher.clone(), instance.clone());
            |_, status| async move {
                let _last_to_end = drained.drop_guard();
                Marks::new(pool, answered, returns, settings, instance, status).run().await
            }
        });
        tasks.spawn("reload", {
            let reloader = Reloader::new(&settings, pool.clone(), queue.clone(), lanes);
            |shutdown, status| reloader.run(shutdown, status)
        });
        tasks.spawn("partitions", {
            let kept_for = settings.retention.published_messages;
            let (pool, instance, settings) = (pool.clone(), instance.clone(), settings.partitions);
            let partitions = Partitions { pool, instance, settings, kept_for };
            |shutdown, status| partitions.run(shutdown, status)
        });
        Ok((queue, HandOver { pool, instance }))
    }

    /// As [`Begun::start`], for a service that does not write messages itself.
    ///
    /// # Errors
    /// librdkafka refuses its settings.
    pub fn start_transactions(
        self,
        settings: &transaction::Settings,
        tasks: &mut Tasks,
        exposition: &Exposition,
    ) -> anyhow::Result<(Transactions, HandOver)> {
        let pool = self.pool.clone();
        let retention = Retention { pool: pool.clone(), settings: self.settings.retention.clone() };
        let (queue, hand_over) = self.start(tasks, exposition)?;
        let (transactions, transactor) = transaction::line(settings, pool, queue);
        for _ in 0..settings.tasks {
            let transactor = transactor.clone();
            tasks.spawn("transactions", |_, status| transactor.run(status));
        }
        tasks.spawn("retention", |shutdown, status| retention.run(shutdown, status));
        Ok((transactions, hand_over))
    }
}

/// What is done once every task has ended.
#[derive(Debug)]
pub struct HandOver {
    pool: Pool,
    instance: Instance,
}

impl HandOver {
    /// Leaves what was not sent to other instances.
    pub async fn end(self) {
        if !matches!(timeout(HAND_OVER_WITHIN, self.instance.end(&self.pool)).await, Ok(Ok(()))) {
            tracing::warn!("could not hand over what was not sent; the next instance takes it all the same");
        }
    }
}
