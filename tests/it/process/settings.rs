//! Where settings come from, and what is said of those that are missing or make no sense.

use super::program::{ACCESS_TOKEN, API_KEY, APP_SECRET, Place, VERIFY_TOKEN, settings};

/// Starts a server, and sees that it takes a webhook signed with the app secret.
async fn serves(place: &Place, environment: &[(&str, &str)]) {
    let server = place.serve(environment).await;
    let webhook = format!("{}/webhooks/meta", server.url);
    let secret = [("META_APP_SECRET", APP_SECRET), ("META_APP_SECRET_FILE", "")];
    let sent = place.run(&["trigger", "--url", &webhook], &secret).await;
    assert_eq!(sent.code, Some(0), "{sent:?}");
    server.stop().await;
}

/// Starts a server that must refuse to start, and answers with the one line that it says.
async fn refusal(place: &Place, environment: &[(&str, &str)]) -> String {
    let ended = place.run(&["serve"], environment).await;
    assert_eq!(ended.code, Some(78), "{ended:?}");
    assert_eq!(ended.stdout, "");
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(!place.path("leadloop.redb").exists(), "the store was made all the same");
    ended.stderr
}

#[tokio::test]
async fn secrets_are_read_from_files() {
    let place = Place::new();
    place.write("secret", &format!("{APP_SECRET}\n"));
    place.write("token", &format!("{ACCESS_TOKEN}\n"));
    let from_files = [("META_APP_SECRET_FILE", "secret"), ("META_ACCESS_TOKEN_FILE", "token")];
    serves(&place, &settings(&["META_APP_SECRET", "META_ACCESS_TOKEN"], from_files)).await;
}

#[tokio::test]
async fn a_dot_env_file_is_read_and_the_environment_wins_over_it() {
    let place = Place::new();
    place.write(
        ".env",
        &format!(
            "# settings\nMETA_APP_SECRET={APP_SECRET}\nMETA_VERIFY_TOKEN=\"{VERIFY_TOKEN}\"\n\
             META_DATASET_ID=700\nMETA_ACCESS_TOKEN={ACCESS_TOKEN}\nLEADLOOP_LISTEN=nonsense\n\
             LEADLOOP_STORE=from-dot-env.redb\n"
        ),
    );
    serves(&place, &[("LEADLOOP_LISTEN", "127.0.0.1:0")]).await;
    assert!(place.path("from-dot-env.redb").exists());
}

#[tokio::test]
async fn leadloop_toml_is_read_and_dot_env_wins_over_it() {
    let place = Place::new();
    place.write(
        "leadloop.toml",
        &format!(
            "meta_app_secret = \"{APP_SECRET}\"\nmeta_verify_token = \"{VERIFY_TOKEN}\"\n\
             meta_dataset_id = \"700\"\nmeta_access_token = \"{ACCESS_TOKEN}\"\n\
             listen = \"127.0.0.1:0\"\nstore = \"from-toml.redb\"\n\n\
             [[api_keys]]\nname = \"crm\"\nkey = \"{API_KEY}\"\nscopes = [\"read\"]\n"
        ),
    );
    let server = place.serve(&[]).await;
    server.get("/v1/leads", API_KEY).await;
    let ended = server.stop().await;
    assert_eq!(ended.stdout, "", "a key is configured, so none is made");
    assert!(place.path("from-toml.redb").exists());
    place.write(".env", "LEADLOOP_STORE=from-dot-env.redb\n");
    serves(&place, &[]).await;
    assert!(place.path("from-dot-env.redb").exists());
    std::fs::rename(place.path("leadloop.toml"), place.path("other.toml")).unwrap();
    serves(&place, &[("LEADLOOP_CONFIG", "other.toml")]).await;
}

#[tokio::test]
async fn each_setting_that_is_missing_is_named() {
    let place = Place::new();
    for name in ["META_APP_SECRET", "META_VERIFY_TOKEN", "META_DATASET_ID", "META_ACCESS_TOKEN"] {
        let said = refusal(&place, &settings(&[name], [])).await;
        assert!(said.starts_with(&format!("leadloop: {name}: is missing")), "{said}");
        // Set to nothing is not set.
        let said = refusal(&place, &settings(&[name], [(name, "")])).await;
        assert!(said.starts_with(&format!("leadloop: {name}: is missing")), "{said}");
    }
    let said = refusal(&place, &[]).await;
    assert!(said.starts_with("leadloop: META_APP_SECRET: "), "{said}");
}

#[tokio::test]
async fn settings_that_contradict_each_other_or_themselves_are_named() {
    let place = Place::new();
    place.write("secret", APP_SECRET);
    place.write("empty", "\n");
    let two_secrets = ("META_APP_SECRET_FILE", "secret");
    let said = refusal(&place, &settings(&[], [two_secrets])).await;
    assert!(said.contains("META_APP_SECRET") && said.contains("META_APP_SECRET_FILE"), "{said}");
    for (name, value) in [
        ("META_GRAPH_URL", "http://example.com"),
        ("META_API_VERSION", "24"),
        ("LEADLOOP_LISTEN", "8080"),
        ("LEADLOOP_STORE", "mysql://localhost/leads"),
        ("META_DATASET_ID", "my dataset"),
        ("META_VERIFY_TOKEN_FILE", "missing"),
        ("META_VERIFY_TOKEN_FILE", "empty"),
        ("LEADLOOP_CONFIG", "missing.toml"),
    ] {
        let set = settings(&[name, name.trim_end_matches("_FILE")], [(name, value)]);
        let said = refusal(&place, &set).await;
        let named = if name == "LEADLOOP_CONFIG" { value } else { name };
        assert!(said.starts_with(&format!("leadloop: {named}: ")), "{name}={value}: {said}");
    }
}

#[tokio::test]
async fn a_file_that_contradicts_itself_is_named_and_not_quoted() {
    let place = Place::new();
    for (text, named) in [
        ("[[pages]]\nid = \"1\"\ndataset = \"2\"\n", "page 1"),
        ("[[datasets]]\nid = \"700\"\naccess_token = \"x\"\n", "dataset 700"),
        ("colour = \"red\"\n", "colour"),
        ("meta_app_secret = \"process-app-secret\n", "leadloop.toml"),
    ] {
        place.write("leadloop.toml", text);
        let said = refusal(&place, &settings(&[], [])).await;
        assert!(said.starts_with(&format!("leadloop: {named}: ")), "{text}: {said}");
    }
}
