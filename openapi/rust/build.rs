//! Makes the client of `openapi/imgsrv.json`, and finds the program that the README shows.

use std::path::Path;
use std::{env, fs};

use progenitor_impl::{GenerationSettings, Generator, InterfaceStyle};
use serde_json::Value;

fn main() {
    // A build script runs in the folder of its package.
    let path = "../imgsrv.json";
    println!("cargo::rerun-if-changed={path}");
    println!("cargo::rerun-if-changed=build.rs");
    let mut document = serde_json::from_slice(&fs::read(path).expect("the specification")).expect("JSON");
    adapt(&mut document);
    let document = serde_json::from_value(document).expect("OpenAPI 3.0");
    let mut generator = Generator::new(GenerationSettings::new().with_interface(InterfaceStyle::Builder));
    let client = generator.generate_tokens(&document).expect("a client");
    let folder = env::var("OUT_DIR").expect("a folder");
    let folder = Path::new(&folder);
    fs::write(folder.join("client.rs"), client.to_string()).expect("a file");

    let path = "../README.md";
    println!("cargo::rerun-if-changed={path}");
    let text = fs::read_to_string(path).expect("the README");
    let program = text.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a program");
    fs::write(folder.join("readme.rs"), program).expect("a file");
}

/// Says what the generator takes: it reads a problem as JSON, whatever JSON it is, and knows one form of each body.
fn adapt(value: &mut Value) {
    match value {
        Value::Object(members) => {
            if let Some(content) = members.get_mut("content").and_then(Value::as_object_mut) {
                if let Some(problem) = content.remove("application/problem+json") {
                    content.insert("application/json".to_owned(), problem);
                }
                if content.len() > 1 {
                    content.retain(|media_type, _| !media_type.starts_with("text/"));
                }
                if content.contains_key("text/html") {
                    content.clear();
                }
            }
            members.values_mut().for_each(adapt);
        }
        Value::Array(items) => items.iter_mut().for_each(adapt),
        _ => {}
    }
}
