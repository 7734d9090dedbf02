//! Several order-services with a database of their own each, on one topic.

use std::{collections::BTreeSet, time::Duration as Limit};

use serde_json::{Value, json};
use testing::{Checker, Client, Database, History, Service, Setup, Topic, wait_until};
use time::{Duration, OffsetDateTime};

use crate::{
    completeness::{
        announcement, complete_to, completeness, minutes, moment, of_day, progress_topic, tell, text, verify,
    },
    shop,
    world::{CREATED, World, client, created, reference, seconds},
};

struct Cell {
    number: usize,
    orders: Database,
    history: History,
}

impl Cell {
    async fn new(number: usize) -> Self {
        Self { number, orders: shop::database().await, history: History::default() }
    }

    fn source(&self) -> String {
        if self.number == 1 { "/order-service".to_owned() } else { format!("/order-service/{}", self.number) }
    }

    fn setup(&self, topic: &Topic) -> Setup {
        shop::ordering(&self.orders, topic).set("cell.number", self.number).set("cell.count", 3)
    }

    fn client(&self, service: &Service) -> Client {
        Client::new(service.api(), &self.history)
    }

    async fn written_to(&self, to: OffsetDateTime) -> i64 {
        let written = "SELECT count(*) FROM outbox WHERE activity_at <= $1";
        sqlx::query_scalar(written).bind(to).fetch_one(&self.orders.pool).await.unwrap()
    }

    async fn newest(&self) -> OffsetDateTime {
        sqlx::query_scalar("SELECT max(activity_at) FROM outbox").fetch_one(&self.orders.pool).await.unwrap()
    }
}

/// What was said to be complete, and how much up to then was counted when it was said.
#[derive(Default)]
struct Told(Vec<(OffsetDateTime, i64)>);

impl Told {
    /// Asks for so long.
    async fn watch(&mut self, world: &World, counting: &Service, how_long: Limit) {
        let counted = "SELECT count(*) FROM processed_messages WHERE activity_at <= $1";
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < how_long {
            tokio::time::sleep(Limit::from_millis(50)).await;
            let Some(to) = completeness(counting).await["completeTo"].as_str().map(moment) else { continue };
            let counted: i64 = sqlx::query_scalar(counted).bind(to).fetch_one(&world.database.pool).await.unwrap();
            self.0.push((to, counted));
        }
    }

    /// Nothing was called complete that any of the cells had more of.
    async fn was_true(&self, cells: &[Cell]) {
        assert!(self.0.len() > 50, "{}", self.0.len());
        for (to, counted) in &self.0 {
            let mut written = 0;
            for cell in cells {
                written += cell.written_to(*to).await;
            }
            assert!(
                *counted >= written,
                "{written} were written up to {to}, {counted} of them counted when it was told"
            );
        }
    }
}

async fn source(counting: &Service, name: &str) -> Value {
    let told = completeness(counting).await;
    told["sources"].as_array().unwrap().iter().find(|one| one["source"] == name).cloned().unwrap_or_default()
}

/// Holds: Every order of every cell is counted once, and nothing is called complete while a cell has more of it: one
/// that joins is known before its first order, one that is away is named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_third_cell_joins_under_load_and_one_that_is_away_is_named_until_it_is_back() {
    let world = World::without_topic().await;
    let cells = [Cell::new(1).await, Cell::new(2).await, Cell::new(3).await];
    let start = async |number: usize| cells[number - 1].setup(world.topic()).start().await;
    let counting = world.setup();
    let (counting, first, second) = tokio::join!(counting.start(), start(1), start(2));
    let (one, two) = (cells[0].client(&first), cells[1].client(&second));
    let mut told = Told::default();

    // The third joins.
    let joining = async {
        told.watch(&world, &counting, seconds(3)).await;
        let third = start(3).await;
        let at_start = source(&counting, "/order-service/3").await;
        cells[2].client(&third).load_during(4, told.watch(&world, &counting, seconds(4))).await;
        (third, at_start)
    };
    let (third, at_start) = one.load_during(2, two.load_during(2, joining)).await;
    assert_eq!(at_start["source"], "/order-service/3", "it is known before its first order");
    let sources = completeness(&counting).await["sources"].clone();
    let names: Vec<_> = sources.as_array().unwrap().iter().map(|one| one["source"].clone()).collect();
    assert_eq!(names, ["/order-service", "/order-service/2", "/order-service/3"]);

    // The second goes away, and the others go on.
    let three = cells[2].client(&third);
    let away = async {
        second.kill().await;
        // What it said last may be on its way.
        told.watch(&world, &counting, seconds(2)).await;
        let last = moment(source(&counting, "/order-service/2").await["announcedTo"].as_str().unwrap());
        told.watch(&world, &counting, seconds(3)).await;
        last
    };
    let last = one.load_during(2, three.load_during(2, away)).await;
    let ahead = moment(source(&counting, "/order-service").await["countedTo"].as_str().unwrap());
    assert!(ahead > last + Duration::seconds(2), "{ahead} {last}");
    assert_eq!(complete_to(&counting).await, Some(last), "it stands where the one that is away stands");
    // A minute later.
    let later = "UPDATE sources SET told_at = told_at - interval '1 minute' WHERE source = '/order-service/2'";
    world.database.execute(later).await;
    for (number, is_named) in [(1, false), (2, true), (3, false)] {
        let silent = source(&counting, &cells[number - 1].source()).await["silentSince"].clone();
        assert_eq!(!silent.is_null(), is_named, "{number}: {silent}");
    }

    // It is back.
    let second = start(2).await;
    cells[1].client(&second).load_during(2, told.watch(&world, &counting, seconds(2))).await;
    let mut newest = cells[0].newest().await;
    for cell in &cells {
        newest = newest.max(cell.newest().await);
    }
    wait_until("all of it is complete", seconds(20), async || complete_to(&counting).await >= Some(newest)).await;
    assert!(source(&counting, "/order-service/2").await["silentSince"].is_null());
    told.was_true(&cells).await;

    // No order has the number of another, and each is counted once.
    let (mut numbers, mut orders) = (BTreeSet::new(), 0);
    for cell in &cells {
        let of_cell: Vec<i64> =
            sqlx::query_scalar("SELECT order_id FROM orders").fetch_all(&cell.orders.pool).await.unwrap();
        assert!(of_cell.len() > 50, "{}", of_cell.len());
        orders += of_cell.len();
        numbers.extend(of_cell);
    }
    assert_eq!(numbers.len(), orders);
    assert_eq!(usize::try_from(world.counted().await).unwrap(), orders);
    for service in [first, second, third, counting] {
        assert_eq!(service.stop().await, Some(0));
    }
    for cell in &cells {
        let checker = Checker::new(&cell.orders.pool, world.topic(), &cell.history);
        checker.of_source(&cell.source()).duplicates_allowed().judge().await;
    }
    world.judge().await;
}

#[tokio::test]
async fn what_the_cells_wrote_in_a_minute_is_held_against_what_was_counted_together() {
    let world = World::new(1).await;
    progress_topic(&world).await;
    let now = OffsetDateTime::now_utc();
    let day = now.date().previous_day().unwrap();
    let begin = day.midnight().assume_utc();
    let at = begin + Duration::hours(12);
    let reference = |number| reference(&day.to_string(), number + ((12 * 3_600_000) << 80));
    let message = |number: u128| {
        created()
            .with_field("messageRef", reference(number).to_string())
            .with_field("activityAt", text(at + Duration::seconds(7)))
    };
    world.produce(&(0..7).map(message).collect::<Vec<_>>()).await;
    let service = world.setup().start().await;
    world.has_counted(7, seconds(20)).await;
    let (day, to) = (day.to_string(), text(now));
    let of_cell = |number: i64, mut told: Vec<Value>| {
        told.iter_mut().for_each(|one| one["source"] = format!("/order-service/{number}").into());
        told
    };
    // The first has told everything. The second is known, and has told nothing of that day yet.
    tell(&world, &of_cell(2, minutes(&world, begin, &[], &text(begin + Duration::minutes(3)), 0))).await;
    tell(&world, &minutes(&world, begin, &[(at, 4)], &to, 7)).await;
    let checked = "SELECT count(*) FROM source_minutes WHERE checked_at IS NOT NULL";
    wait_until("the minutes that both have told are checked", seconds(30), async || {
        world.database.number(checked).await == 6
    })
    .await;
    tokio::time::sleep(seconds(6)).await;
    assert_eq!(world.database.number(checked).await, 6, "of the others one has not told");
    assert_eq!(of_day(&service, &day).await["state"], "behind");
    tell(&world, &of_cell(2, minutes(&world, begin, &[(at, 3)], &to, 7))).await;
    let is_complete = async || {
        wait_until("the day is complete", seconds(60), async || {
            let told = of_day(&service, &day).await;
            told["state"] == "complete" && told["difference"] == json!([])
        })
        .await;
    };
    is_complete().await;
    let expected = json!([{"activityTypeCode": CREATED, "quantity": 7}]);
    assert_eq!(of_day(&service, &day).await["expected"], expected);
    wait_until("every minute is checked", seconds(60), async || {
        world.database.number("SELECT count(*) FROM source_minutes WHERE checked_at IS NULL").await == 0
    })
    .await;
    is_complete().await;

    // A third says that it has begun today: nothing is expected of it of the day before.
    let today = now.replace_time(time::Time::from_hms(now.hour(), now.minute(), 0).unwrap());
    let mut third = of_cell(3, vec![announcement(&world, &to, 7)]);
    third[0]["since"] = text(today).into();
    tell(&world, &third).await;
    wait_until("it is known", seconds(20), async || {
        completeness(&service).await["sources"].as_array().unwrap().len() == 3
    })
    .await;
    is_complete().await;
    let right = (0, format!("{day} {CREATED} figure 7 keys 7 written 7: ok"));
    assert_eq!(verify(&world).await, right);

    // One is lost: whose it was nobody knows, but that one is missing.
    let key = format!("processed_messages WHERE message_ref = '{}'", reference(6));
    world.database.execute(&format!("CREATE TABLE taken AS SELECT * FROM {key}; DELETE FROM {key}")).await;
    world.database.execute("UPDATE source_minutes SET checked_at = NULL WHERE quantities <> '{}'").await;
    let lost = json!({"minute": text(at), "activityTypeCode": CREATED, "expected": 7, "counted": 6});
    wait_until("it is named", seconds(120), async || {
        of_day(&service, &day).await["difference"].as_array().unwrap().contains(&lost)
    })
    .await;
    world.database.execute("INSERT INTO processed_messages SELECT * FROM taken; DROP TABLE taken").await;
    world.database.execute("UPDATE source_minutes SET checked_at = NULL WHERE quantities <> '{}'").await;
    is_complete().await;

    // A fourth that does not say since when leaves the day unknown.
    tell(&world, &of_cell(4, vec![announcement(&world, &to, 7)])).await;
    wait_until("it is unknown", seconds(20), async || of_day(&service, &day).await["state"] == "unknown").await;
    assert_eq!(client(&service).get(&format!("/activities/{day}")).await.body[0]["quantity"], 7);
    world.judge().await;
}
