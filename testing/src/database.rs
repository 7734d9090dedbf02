use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use sqlx::{
    Connection, Executor, PgConnection, PgPool,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use uuid::Uuid;

use crate::{Postgres, Proxy, stack};

/// What a service may do in its database. Every test runs its service under it.
const PRIVILEGES: &str = include_str!("../../deploy/database/privileges.sql");
/// Migrates.
const OWNER: &str = "test_owner";
/// The service's; it cannot change the schema.
pub(crate) const SERVICE: &str = "test_service";

/// What Postgres makes a database of where nothing else is named.
const EMPTY: &str = "template1";

/// A database of a test's own, gone when the test is.
#[derive(Debug)]
pub struct Database {
    server: String,
    name: String,
    /// Of the test itself, as superuser; the service has its own.
    pub pool: PgPool,
    drop_it: bool,
}

impl Database {
    /// On the stack's server, with the schema of `migrations`: a copy of one that has it, which takes a third of the time.
    pub async fn new(migrations: &Migrator) -> Self {
        let server = stack("POSTGRES_URL");
        let template = template(&server, migrations).await;
        Self::create(server, &template, true).await
    }

    /// On the stack's server, without a schema.
    pub async fn empty() -> Self {
        Self::create(stack("POSTGRES_URL"), EMPTY, true).await
    }

    /// On a server of the test's own, with the schema of `migrations`. It goes with the server.
    pub async fn on(server: &Postgres, migrations: &Migrator) -> Self {
        let database = Self::empty_on(server).await;
        database.migrate(migrations).await;
        database
    }

    /// On a server of the test's own, without a schema. It goes with the server.
    pub async fn empty_on(server: &Postgres) -> Self {
        Self::create(server.url(), EMPTY, false).await
    }

    /// On the server that a proxy leads to, whichever that is at a time. It goes with the server.
    pub async fn empty_behind(proxy: &Proxy) -> Self {
        Self::create(format!("postgres://postgres@127.0.0.1:{}", proxy.port()), EMPTY, false).await
    }

    async fn create(server: String, template: &str, drop_it: bool) -> Self {
        let name = format!("test_{}", Uuid::now_v7().simple());
        Self::named(name, server, template, drop_it).await
    }

    async fn named(name: String, server: String, template: &str, drop_it: bool) -> Self {
        let mut admin = PgConnection::connect(&format!("{server}/postgres")).await.expect("Postgres is there");
        for role in [OWNER, SERVICE] {
            let made = admin.execute(format!("CREATE ROLE {role} LOGIN").as_str()).await;
            // All databases of a server share its roles, and several tests begin at once.
            let code = made.err().map(|error| error.as_database_error().unwrap().code().unwrap().into_owned());
            assert!(matches!(code.as_deref(), None | Some("42710" | "23505")), "CREATE ROLE {role}: {code:?}");
        }
        admin.execute(format!("CREATE DATABASE {name} TEMPLATE {template}").as_str()).await.unwrap();
        let pool = PgPoolOptions::new().max_connections(4).acquire_timeout(Duration::from_secs(10));
        // What a test asks is small: compiling it would cost more than running it, and take the time of what is tested.
        let options: PgConnectOptions = format!("{server}/{name}").parse().unwrap();
        let pool = pool.connect_lazy_with(options.options([("jit", "off")]));
        let database = Self { server, name, pool, drop_it };
        database.grant().await;
        database
    }

    async fn migrate(&self, migrations: &Migrator) {
        let mut owner = PgConnection::connect(&self.owner_url()).await.unwrap();
        migrations.run(&mut owner).await.unwrap();
        owner.close().await.unwrap();
        self.grant().await;
    }

    /// As an operator does with psql: before the first migration and after it.
    pub async fn grant(&self) {
        self.grant_in("public").await;
    }

    /// As [`Database::grant`], in a schema that is made where it is not there: one of a second installation.
    pub async fn grant_in(&self, schema: &str) {
        let sql = [("owner", OWNER), ("service", SERVICE)].iter().fold(PRIVILEGES.to_owned(), |sql, (name, value)| {
            sql.replace(&format!(":'{name}'"), &format!("'{value}'"))
        });
        let of_schema =
            format!("CREATE SCHEMA IF NOT EXISTS {schema}; SET search_path = {schema}; {sql}; RESET search_path");
        self.execute(&of_schema).await;
    }

    /// With the role of the service.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_as(SERVICE)
    }

    /// As [`Database::url`], with a password that the role is given.
    pub async fn url_with_password(&self, password: &str) -> String {
        self.execute(&format!("ALTER ROLE {SERVICE} PASSWORD '{password}'")).await;
        self.url().replacen('@', &format!(":{password}@"), 1)
    }

    /// Ends every session of the service.
    pub async fn end_sessions(&self) {
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND usename = ";
        assert!(self.number(&format!("{end}'{SERVICE}'")).await > 0, "there were sessions to end");
    }

    /// With the role that migrates.
    #[must_use]
    pub fn owner_url(&self) -> String {
        self.url_as(OWNER)
    }

    /// With the role of the test itself.
    #[must_use]
    pub fn superuser_url(&self) -> String {
        format!("{}/{}", self.server, self.name)
    }

    fn url_as(&self, role: &str) -> String {
        format!("postgres://{role}@{}/{}", self.address(), self.name)
    }

    /// Of the server: `HOST:PORT`.
    #[must_use]
    pub fn address(&self) -> &str {
        self.server.rsplit(['@', '/']).next().expect("a split has a part")
    }

    /// The same database through a proxy that listens on `port`.
    #[must_use]
    pub fn url_through(&self, port: u16) -> String {
        format!("postgres://{SERVICE}@127.0.0.1:{port}/{}", self.name)
    }

    /// # Panics
    /// Postgres refuses it.
    pub async fn execute(&self, sql: &str) -> u64 {
        self.pool.execute(sqlx::raw_sql(sql)).await.unwrap_or_else(|error| panic!("{sql}: {error}")).rows_affected()
    }

    /// The one number that a query answers.
    ///
    /// # Panics
    /// It does not.
    pub async fn number(&self, sql: &str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }
}

/// The database on this server that has the schema of `migrations`, made by whoever needs it first.
async fn template(server: &str, migrations: &Migrator) -> String {
    let mut hasher = DefaultHasher::new();
    migrations.iter().for_each(|one| (one.version, &one.checksum).hash(&mut hasher));
    let hash = hasher.finish();
    let name = format!("template_{hash:016x}");
    let mut admin = PgConnection::connect(&format!("{server}/postgres")).await.expect("Postgres is there");
    // Held until this connection closes.
    sqlx::query("SELECT pg_advisory_lock($1)").bind(hash.cast_signed()).execute(&mut admin).await.unwrap();
    let is_made = "SELECT count(*) > 0 FROM pg_database WHERE datname = $1 AND datistemplate";
    if sqlx::query_scalar(is_made).bind(&name).fetch_one(&mut admin).await.unwrap() {
        return name;
    }
    // What is left of a test that ended in the middle.
    admin.execute(format!("DROP DATABASE IF EXISTS {name}").as_str()).await.unwrap();
    let database = Database::named(name.clone(), server.to_owned(), EMPTY, false).await;
    database.migrate(migrations).await;
    database.pool.close().await;
    admin.execute(format!("ALTER DATABASE {name} IS_TEMPLATE true").as_str()).await.unwrap();
    name
}

impl Drop for Database {
    fn drop(&mut self) {
        if !self.drop_it {
            return;
        }
        let (server, statement) = (self.server.clone(), format!("DROP DATABASE {} WITH (FORCE)", self.name));
        let drop_database = async move {
            let mut admin = PgConnection::connect(&format!("{server}/postgres")).await?;
            admin.execute(statement.as_str()).await
        };
        // A thread: the test's runtime cannot be waited for from inside it.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), drop_database).await })
        });
        if !matches!(dropped.join(), Ok(Ok(Ok(_)))) && !std::thread::panicking() {
            panic!("the test's database could not be dropped");
        }
    }
}
