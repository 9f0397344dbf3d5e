//! The way to the database, encrypted, and who is believed to be at its end.

use std::net::TcpListener;

use crate::store::postgres::PostgresStore;
use crate::store::postgres::tests::cluster::{Cluster, run_at};

#[tokio::test]
async fn an_encrypted_server_is_believed_if_its_certificate_says_its_name() {
    // The port of the socket's name, too, so the server has to be told by both.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let cluster = Cluster::start(Some(port));
    let by_socket = format!("{}?port={port}", cluster.url("postgres"));
    run_at(&by_socket, "CREATE ROLE leadloop LOGIN PASSWORD 'hunter2'").await;
    let ca = |name: &str| cluster.folder.join(name).display().to_string();
    let (right, wrong) = (ca("ca.crt"), ca("other-ca.crt"));
    let check = async |password: &str, host: &str, options: &str| {
        let url = format!("postgres://leadloop:{password}@{host}:{port}/postgres?{options}");
        PostgresStore::check(&url.into()).await
    };
    let full = |ca: &str| format!("sslmode=verify-full&sslrootcert={ca}");
    check("hunter2", "localhost", &full(&right)).await.unwrap();
    check("hunter2", "localhost", "sslmode=require").await.unwrap();
    check("hunter2", "localhost", "").await.unwrap();
    for (why, refused) in [
        ("another authority", check("hunter2", "localhost", &full(&wrong)).await),
        ("another name", check("hunter2", "127.0.0.1", &full(&right)).await),
        ("in the clear", check("hunter2", "localhost", "sslmode=disable").await),
        ("a wrong password", check("hunter3", "localhost", &full(&right)).await),
    ] {
        let error = refused.expect_err(why).to_string();
        assert!(!error.contains("hunter"), "{error}");
    }
}
