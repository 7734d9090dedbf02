//! Final orders are written into files, whatever ends the process in between.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use testing::wait_until;

use crate::world::{World, seconds};

/// Ten thousand final orders of 2026, and some that are not final, or later.
const ORDERS: &str = r#"
    INSERT INTO orders (order_id, customer_ref, status, version, number_of_items, placed_at, product_ids, quantities)
    SELECT nextval('order_number'), CASE WHEN n = 3 THEN '=1+1' ELSE 'C "' || n || '", é' END,
        CASE WHEN n % 11 = 0 THEN 'New' WHEN n % 2 = 0 THEN 'Cancelled' ELSE 'Fulfilled' END,
        CASE WHEN n % 11 = 0 THEN 1 ELSE 2 END, 1 + n % 3,
        -- Several of the same time.
        '2026-01-01T00:00:00Z'::timestamptz + n / 7 * interval '1 second',
        array_fill('0192f0c1-7a5e-7000-8000-000000000001'::uuid, ARRAY[1 + n % 3]), array_fill(n, ARRAY[1 + n % 3])
    FROM generate_series(1, 11000) AS n;
    INSERT INTO orders (order_id, customer_ref, status, version, number_of_items, placed_at, product_ids, quantities)
    SELECT nextval('order_number'), 'C-late', 'Fulfilled', 2, 1, '2026-02-01T00:00:00Z', ARRAY[gen_random_uuid()], ARRAY[1]
"#;

async fn world() -> World {
    let world = World::new().await;
    world.database.execute(ORDERS).await;
    world
}

struct Folder(TempDir);

impl Folder {
    fn path(&self) -> PathBuf {
        self.0.path().join("orders")
    }

    fn manifest(&self) -> Option<Value> {
        let text = fs::read_to_string(self.path().join("manifest.json")).ok()?;
        Some(serde_json::from_str(&text).unwrap())
    }

    fn files(&self) -> usize {
        self.manifest().map_or(0, |manifest| manifest["files"].as_array().unwrap().len())
    }

    /// Every line of every file, each file as the manifest says it is.
    fn lines(&self) -> Vec<String> {
        let manifest = self.manifest().unwrap();
        assert_eq!(manifest["complete"], json!(true));
        let mut lines = Vec::new();
        for file in manifest["files"].as_array().unwrap() {
            let bytes = fs::read(self.path().join(file["name"].as_str().unwrap())).unwrap();
            let hash: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!((file["sha256"].as_str(), file["bytes"].as_u64()), (Some(&*hash), Some(bytes.len() as u64)));
            lines.extend(String::from_utf8(bytes).unwrap().lines().map(str::to_owned));
        }
        lines
    }
}

fn folder() -> Folder {
    Folder(tempfile::tempdir().unwrap())
}

fn arguments<'a>(folder: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let wanted = ["orders", "export", "--before", "2026-02-01", "--to", folder.to_str().unwrap()];
    wanted.into_iter().chain(more.iter().copied()).collect()
}

async fn export(world: &World, folder: &Folder, more: &[&str]) -> Output {
    world.setup().run(&arguments(&folder.path(), more)).await
}

async fn forget(world: World) {
    world.database.execute("TRUNCATE orders").await;
    world.judge_nothing_placed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_and_said_again_it_has_every_order_once() {
    let (world, folder) = (world().await, folder());
    let path = folder.path();
    let small = ["--per-file", "100"];
    let mut killed = world.setup().begin(&arguments(&path, &small));
    wait_until("some files are written", seconds(30), async || folder.files() >= 3).await;
    // The next question waits, so that it is in the middle.
    let mut held = world.database.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE orders").execute(&mut *held).await.unwrap();
    wait_until("it waits", seconds(20), async || {
        let waits =
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
        world.database.number(waits).await > 0
    })
    .await;
    // Nobody else may write meanwhile.
    let other = export(&world, &folder, &small).await;
    assert_eq!(other.status.code(), Some(1));
    assert!(String::from_utf8(other.stderr).unwrap().contains("another process exports"));
    killed.kill().await.unwrap();
    held.rollback().await.unwrap();
    let begun = folder.files();
    assert!((3..100).contains(&begun), "{begun} files");
    assert_eq!(folder.manifest().unwrap()["complete"], json!(false));
    // As it is left by a kill between the file and the manifest.
    fs::write(path.join(format!("orders-{:06}.jsonl", begun + 1)), "half").unwrap();

    let first = fs::metadata(path.join("orders-000001.jsonl")).unwrap().modified().unwrap();
    let done = export(&world, &folder, &small).await;
    let told = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(0), "{told}");
    assert!(told.ends_with("10000 orders in 100 files, complete\n"), "{told}");
    assert_eq!(told.lines().count(), 100 - begun + 1, "a line for each file that it wrote");
    assert_eq!(fs::metadata(path.join("orders-000001.jsonl")).unwrap().modified().unwrap(), first, "it went on");

    let lines: Vec<Value> = folder.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let refs: BTreeMap<&str, &Value> = lines.iter().map(|one| (one["orderRef"].as_str().unwrap(), one)).collect();
    assert_eq!((lines.len(), refs.len()), (10_000, 10_000), "none twice");
    assert_eq!(folder.manifest().unwrap()["orders"], json!(10_000));
    let line = json!({"productId": "0192f0c1-7a5e-7000-8000-000000000001", "quantity": 2});
    let second = json!({"orderRef": "OS000002-ORD", "customerRef": "C \"2\", é", "numberOfItems": 3, "statusName": "Cancelled",
        "placedAt": "2026-01-01T00:00:00Z", "orderItems": [line, line, line]});
    assert_eq!(refs["OS000002-ORD"], &second);

    let again = export(&world, &folder, &small).await;
    assert_eq!(again.status.code(), Some(0), "it is complete, and stays as it is");
    for (more, told) in
        [(&["--format", "csv"][..], "another --before or --format"), (&[], "is not as its manifest says")]
    {
        if more.is_empty() {
            fs::write(path.join("orders-000002.jsonl"), "").unwrap();
        }
        let refused = export(&world, &folder, more).await;
        assert_eq!(refused.status.code(), Some(1));
        assert!(String::from_utf8(refused.stderr).unwrap().contains(told), "{told}");
    }
    forget(world).await;
}

#[tokio::test]
async fn as_csv_it_has_a_row_a_line_of_an_order() {
    let (world, folder) = (world().await, folder());
    let done = export(&world, &folder, &["--format", "csv"]).await;
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    let lines = folder.lines();
    let items =
        "SELECT sum(number_of_items)::bigint FROM orders WHERE status <> 'New' AND placed_at < '2026-02-01T00:00:00Z'";
    assert_eq!(lines.len(), 1 + usize::try_from(world.database.number(items).await).unwrap());
    assert_eq!(lines[0], "orderRef,customerRef,statusName,orderVersion,placedAt,lineNumber,productId,quantity");
    assert_eq!(
        lines[1],
        "OS000001-ORD,\"C \"\"1\"\", é\",Fulfilled,2,2026-01-01T00:00:00Z,1,0192f0c1-7a5e-7000-8000-000000000001,1"
    );
    let to = folder.path();
    let future = ["orders", "export", "--before", "2999-01-01", "--to", to.to_str().unwrap(), "--format", "csv"];
    let formula = lines.iter().find(|line| line.starts_with("OS000003-ORD")).unwrap();
    assert!(formula.starts_with("OS000003-ORD,\"'=1+1\",Fulfilled"), "{formula}");
    let refused = world.setup().run(&future).await;
    assert!(String::from_utf8(refused.stderr).unwrap().contains("--before: is in the future"));
    assert_eq!(folder.lines(), lines, "nothing was written");
    for wrong in [&future[..], &["orders", "export", "--before", "yesterday", "--to", "x"], &["orders", "export"]] {
        assert_eq!(world.setup().run(wrong).await.status.code(), Some(2), "{wrong:?}");
    }
    forget(world).await;
}
