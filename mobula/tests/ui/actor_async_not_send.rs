#[derive(Clone)]
struct Counter;

struct Local(std::rc::Rc<u8>);

impl mobula::serde::Serialize for Local {
    fn serialize<S: mobula::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(*self.0)
    }
}

impl<'de> mobula::serde::Deserialize<'de> for Local {
    fn deserialize<D: mobula::serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Ok(Local(std::rc::Rc::new(0)))
    }
}

#[mobula::actor]
impl Counter {
    fn new() -> Self {
        Counter
    }

    async fn keep(&self, value: Local) {
        drop(value);
    }
}

fn main() {}
