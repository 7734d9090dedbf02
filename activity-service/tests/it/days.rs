//! Which day an activity belongs to: that of the business time zone, whoever counts it.

use testing::{Service, announcement, wait_until};

use crate::world::{CREATED, World, figures, seconds};

/// Counts activities of these times and tells their days.
async fn days(zone: &str, times: &[&str]) -> Vec<(String, i64)> {
    let world = World::new(1).await;
    // Neither the zone of the machine nor that of the database is asked.
    let name: String =
        sqlx::query_scalar("SELECT current_database()::text").fetch_one(&world.database.pool).await.unwrap();
    world.database.execute(&format!("ALTER DATABASE {name} SET timezone = 'Asia/Tokyo'")).await;
    let messages: Vec<_> = times.iter().map(|at| announcement(CREATED, at)).collect();
    world.produce(&messages).await;
    let setup = world.setup().set("statistics.time_zone", zone).variable("TZ", "Asia/Tokyo");
    let service = setup.variable("PGTZ", "Asia/Tokyo").start().await;
    world.at_rest().await;
    assert_eq!(world.quarantined().await, 0);
    let mut found: Vec<(String, i64)> =
        sqlx::query_as("SELECT activity_date::text, quantity FROM daily_activities ORDER BY activity_date")
            .fetch_all(&world.database.pool)
            .await
            .unwrap();
    found.sort();
    // Over HTTP they are the same.
    for (day, quantity) in &found {
        assert_eq!(figures(&service, &format!("/activities/{day}")).await, [(day.clone(), CREATED.into(), *quantity)]);
    }
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
    found
}

fn expected(days: &[(&str, i64)]) -> Vec<(String, i64)> {
    days.iter().map(|(day, quantity)| ((*day).to_owned(), *quantity)).collect()
}

#[tokio::test]
async fn without_a_setting_the_day_is_that_of_utc_not_of_the_machine() {
    let times = [
        "2026-11-20T00:00:00Z",
        "2026-11-20T14:59:59.999999Z",
        "2026-11-20T15:00:00Z",
        "2026-11-20T23:59:59.999999Z",
        "2026-11-21T00:00:00Z",
        // The offset is only a way of writing.
        "2026-11-21T08:59:59+09:00",
        "2026-11-20T23:00:00-02:00",
    ];
    assert_eq!(days("UTC", &times).await, expected(&[("2026-11-20", 5), ("2026-11-21", 2)]));
}

#[tokio::test]
async fn in_a_zone_with_summer_time_each_day_is_as_long_as_it_is_there() {
    let times = [
        // The clocks go forward on 2024-03-31: a day of 23 hours.
        "2024-03-30T22:59:59.999999Z",
        "2024-03-30T23:00:00Z",
        "2024-03-31T00:59:59Z",
        "2024-03-31T01:00:00Z",
        "2024-03-31T21:59:59.999999Z",
        "2024-03-31T22:00:00Z",
        // And back on 2024-10-27: one of 25.
        "2024-10-26T21:59:59.999999Z",
        "2024-10-26T22:00:00Z",
        "2024-10-27T00:30:00Z",
        "2024-10-27T01:30:00Z",
        "2024-10-27T22:59:59.999999Z",
        "2024-10-27T23:00:00Z",
    ];
    let found = days("Europe/Berlin", &times).await;
    let days = [
        ("2024-03-30", 1),
        ("2024-03-31", 4),
        ("2024-04-01", 1),
        ("2024-10-26", 1),
        ("2024-10-27", 4),
        ("2024-10-28", 1),
    ];
    assert_eq!(found, expected(&days));
}

#[tokio::test]
async fn in_a_zone_of_half_hours_west_of_greenwich_the_day_ends_there_and_then() {
    let times = ["2024-01-10T03:29:59.999999Z", "2024-01-10T03:30:00Z", "2024-07-10T02:29:59Z", "2024-07-10T02:30:00Z"];
    let days_there = [("2024-01-09", 1), ("2024-01-10", 1), ("2024-07-09", 1), ("2024-07-10", 1)];
    assert_eq!(days("America/St_Johns", &times).await, expected(&days_there));
}

#[tokio::test]
async fn today_is_the_day_it_is_in_the_zone() {
    // At any moment these two do not have the same day.
    for zone in ["Pacific/Kiritimati", "Etc/GMT+12"] {
        let world = World::new(1).await;
        let service = world.setup().set("statistics.time_zone", zone).start().await;
        let now: String =
            sqlx::query_scalar(r#"SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')"#)
                .fetch_one(&world.database.pool)
                .await
                .unwrap();
        world.produce(&[announcement(CREATED, &now), announcement(CREATED, &now)]).await;
        world.at_rest().await;
        let today = format!("SELECT to_char(now() AT TIME ZONE '{zone}', 'YYYY-MM-DD')");
        // Midnight may pass between two questions.
        wait_until("today is told as the day it is", seconds(5), async || {
            let day: String = sqlx::query_scalar(&today).fetch_one(&world.database.pool).await.unwrap();
            let (by_name, by_date) =
                (figures(&service, "/activities/today").await, figures(&service, &format!("/activities/{day}")).await);
            by_name == by_date && (by_date == [(day, CREATED.to_owned(), 2)] || by_date.is_empty())
        })
        .await;
        assert_eq!(world.counted().await, 2);
        assert_eq!(service.stop().await, Some(0));
        world.judge().await;
    }
}

#[tokio::test]
async fn another_zone_at_a_later_start_is_refused_and_the_first_still_accepted() {
    let world = World::new(1).await;
    let service = world.setup().set("statistics.time_zone", "Europe/Berlin").start().await;
    assert_eq!(service.stop().await, Some(0));
    for other in ["UTC", "Europe/Paris"] {
        let mut service = world.setup().set("statistics.time_zone", other).spawn();
        assert_eq!(service.ended(seconds(10)).await.code(), Some(2));
        let told: Vec<_> = service.log().into_iter().filter(|line| line.is_string()).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        let told = told[0].as_str().unwrap();
        assert!(told.starts_with("statistics.time_zone: ") && told.contains("Europe/Berlin"), "{told}");
    }
    let mut zone = world.setup().set("statistics.time_zone", "UTC").spawn();
    assert_eq!(zone.ended(seconds(10)).await.code(), Some(2));
    let service = world.setup().set("statistics.time_zone", "Europe/Berlin").start().await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_nothing_counted().await;
}

#[tokio::test]
async fn names_of_one_zone_are_one_and_it_can_be_renamed_to_another_of_them() {
    let world = World::new(1).await;
    let service = world.setup().set("statistics.time_zone", "Europe/Kiev").start().await;
    assert_eq!(service.stop().await, Some(0));
    let service = world.setup().set("statistics.time_zone", "Europe/Kyiv").start().await;
    assert_eq!(service.stop().await, Some(0));
    let kept = async || -> String {
        sqlx::query_scalar("SELECT time_zone FROM business_calendar").fetch_one(&world.database.pool).await.unwrap()
    };
    assert_eq!(kept().await, "Europe/Kiev");
    let rename = async |zone: &str| world.setup().run(&["calendar", "rename", zone]).await.status.code();
    // Neither the name of another zone, nor one that nobody knows; whatever the setting is.
    assert_eq!((rename("Europe/London").await, rename("Mars/Olympus").await), (Some(1), Some(2)));
    assert_eq!(rename("Europe/Kyiv").await, Some(0));
    assert_eq!(kept().await, "Europe/Kyiv");
    // A name that nobody knows any more: its rules tell which zone it was.
    world.database.execute("UPDATE business_calendar SET time_zone = 'Mars/Olympus'").await;
    let mut service = world.setup().set("statistics.time_zone", "Europe/Kyiv").spawn();
    assert_eq!(service.ended(seconds(10)).await.code(), Some(2));
    assert_eq!((rename("Europe/London").await, rename("Europe/Kyiv").await), (Some(1), Some(0)));
    let service = world.setup().set("statistics.time_zone", "Europe/Kiev").start().await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_nothing_counted().await;
}

#[tokio::test]
async fn rules_that_have_changed_are_told_at_the_start_and_by_a_metric_until_they_are_accepted() {
    let world = World::new(1).await;
    let setup = world.setup().set("statistics.time_zone", "Europe/Berlin");
    let service = setup.start().await;
    let kept = "SELECT count(*) FROM business_calendar WHERE rules LIKE '946684800:3600,%'";
    wait_until("the rules are kept", seconds(20), async || world.database.number(kept).await == 1).await;
    let differing = async |service: &Service, with: &str| {
        service.metrics().await.series[&format!("activity_time_zone_differing_dates{{with=\"{with}\"}}")]
    };
    assert_eq!((differing(&service, "kept").await, differing(&service, "program").await), (0.0, 0.0));
    assert_eq!(service.stop().await, Some(0));

    // As if there had been no summer time in 2000.
    world.database.execute("UPDATE business_calendar SET rules = regexp_replace(rules, ',[0-9]+:7200', '')").await;
    let service = setup.start().await;
    let told = async || {
        let mut lines = service.log().into_iter();
        lines.any(|line| line["message"] == "the database's rules of the time zone have changed" && line["days"] == 217)
    };
    wait_until("it is told", seconds(20), told).await;
    wait_until("it is told by a metric", seconds(20), async || differing(&service, "kept").await == 217.0).await;
    assert_eq!(service.stop().await, Some(0));
    assert_eq!(world.setup().run(&["calendar", "rename", "Europe/Berlin"]).await.status.code(), Some(0));
    let service = setup.start().await;
    has_compared(&service).await;
    assert_eq!(differing(&service, "kept").await, 0.0);
    assert_eq!(service.stop().await, Some(0));
    world.judge_nothing_counted().await;
}

/// Waits until it has looked at the zone.
async fn has_compared(service: &Service) {
    let looks = async || service.health().await["components"]["calendar"]["lastSuccess"].clone();
    for _ in 0..2 {
        let before = looks().await;
        wait_until("it has looked", seconds(20), async || looks().await != before).await;
    }
}

#[tokio::test]
async fn it_wants_no_traffic_while_the_database_does_not_know_the_zone() {
    let world = World::new(1).await;
    // The first looks are those of the start and of the first moment after it.
    let service = world.setup().failpoint("calendar::look", "3*off->2*return->off").start().await;
    wait_until("it wants none", seconds(20), async || service.probe("ready").await == Some(503)).await;
    let lost = "the database does not know the time zone any more; nothing is counted until it does, or until a restart \
                finds another name of it";
    assert!(service.log().iter().any(|line| line["message"] == lost));
    assert_eq!(service.probe("live").await, Some(200));
    wait_until("it wants some again", seconds(20), async || service.probe("ready").await == Some(200)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_nothing_counted().await;
}

#[tokio::test]
async fn of_two_first_starts_at_once_with_different_zones_one_is_refused() {
    let world = World::new(1).await;
    let (mut one, mut other) = (
        world.setup().set("statistics.time_zone", "Europe/Berlin").spawn(),
        world.setup().set("statistics.time_zone", "Asia/Tokyo").spawn(),
    );
    let refused = tokio::select! {
        code = one.ended(seconds(15)) => code,
        code = other.ended(seconds(15)) => code,
    };
    assert_eq!(refused.code(), Some(2));
    assert_eq!(world.database.number("SELECT count(*) FROM business_calendar").await, 1);
    world.judge_nothing_counted().await;
}
