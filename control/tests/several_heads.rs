//! A client and two heads that say what the test wants: whom it asks next, and what it knows when nobody answers.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mobula_control::{
    Client, ControlError, Heads, ListHeads, Peer, Refusal, Reply, Request, Service, Target, WatchRevocations,
    serve_certified,
};
use mobula_core::{NodeUid, Outcome};
use mobula_identity::{Head as Identity, UnixTime};
use mobula_transport::tcp;
use mobula_transport::tls::{Accepted, Endpoint, knock, listen};
use mobula_transport::unix::Directory;
use parking_lot::{Mutex, RwLock};
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(60);

/// What a head says to a question, one after the other; the last for ever.
#[derive(Clone)]
enum Says {
    NotLeading(Option<SocketAddr>),
    InDoubt,
    Answer,
    Nothing,
}

#[derive(Clone)]
struct Stage {
    address: SocketAddr,
    says: Arc<Mutex<Vec<Says>>>,
    asked: Arc<Mutex<usize>>,
}

impl Stage {
    fn says(&self, says: &[Says]) {
        *self.says.lock() = says.to_vec();
    }

    fn asked(&self) -> usize {
        *self.asked.lock()
    }
}

impl Service for Stage {
    async fn serve(&self, _: &Peer, _: Request, mut reply: Reply<'_>) -> io::Result<()> {
        *self.asked.lock() += 1;
        let says = {
            let mut says = self.says.lock();
            if says.len() > 1 { says.remove(0) } else { says[0].clone() }
        };
        match says {
            Says::NotLeading(leader) => reply.refuse(Refusal::NotLeading { leader }).await,
            Says::InDoubt => reply.refuse(Refusal::InDoubt("the head ends: so it was told".to_owned())).await,
            Says::Answer => reply.answer::<ListHeads>(Ok(vec![self.address])).await,
            Says::Nothing => {
                reply.gone().await;
                Ok(())
            }
        }
    }
}

/// Two heads of one cluster, and the certificate of a node.
struct Two {
    first: Stage,
    second: Stage,
    heads: Heads,
    client: Client,
    _state: TempDir,
}

/// The client knows of the first alone, or of both.
fn two_heads(knows_both: bool) -> Two {
    let state = tempfile::tempdir().expect("a directory");
    let directory = Directory::create(state.path().join("head")).expect("a directory of our own");
    let identity = Identity::open(&directory, UnixTime::now()).expect("an authority");
    let [first, second] = [NodeUid(1), NodeUid(2)].map(|uid| stage(&identity, uid));
    let heads = Heads::new(first.address, knows_both.then_some(second.address));
    let life = NodeUid(3);
    let own = identity.credentials(life, UnixTime::now()).expect("a certificate");
    let credentials = Arc::new(RwLock::new(Arc::new(own)));
    let client = Client::new(Target::Remote { heads: heads.clone(), credentials, life, job: None });
    Two { first, second, heads, client, _state: state }
}

fn stage(identity: &Identity, uid: NodeUid) -> Stage {
    let credentials = identity.credentials(uid, UnixTime::now()).expect("a certificate");
    let endpoint = Arc::new(Endpoint::new(uid, &credentials, true).expect("good credentials"));
    let listener = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let stage = Stage { address, says: Arc::new(Mutex::new(vec![Says::Answer])), asked: Arc::default() };
    let served = stage.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, address) = tcp::accept_next(&listener).await;
            let (endpoint, service) = (Arc::clone(&endpoint), served.clone());
            tokio::spawn(async move {
                if knock(&mut stream).await.is_ok()
                    && let Ok(Accepted::Controller(stream)) = endpoint.accept(stream, address).await
                {
                    serve_certified(&service, stream).await;
                }
            });
        }
    });
    stage
}

#[tokio::test]
async fn who_does_not_lead_is_followed_by_the_one_that_it_names() {
    let Two { first, second, heads, client, .. } = &two_heads(false);
    first.says(&[Says::NotLeading(Some(second.address))]);
    assert_eq!(client.ask_within(ListHeads {}, LONG).await.expect("an answer"), [second.address]);
    assert_eq!((heads.current(), first.asked(), second.asked()), (second.address, 1, 1));
    // It is not forgotten.
    client.ask_within(ListHeads {}, LONG).await.expect("an answer");
    assert_eq!((first.asked(), second.asked()), (1, 2));
}

#[tokio::test]
async fn while_nobody_leads_a_question_waits() {
    let Two { first, client, .. } = &two_heads(false);
    let nobody = Says::NotLeading(None);
    // Also one that takes itself for the leader, as the one before did.
    first.says(&[nobody.clone(), nobody, Says::NotLeading(Some(first.address)), Says::Answer]);
    client.ask_within(ListHeads {}, LONG).await.expect("an answer");
    assert_eq!(first.asked(), 4);
}

#[tokio::test]
async fn a_head_that_is_silent_may_have_done_it_whatever_another_has_said_before() {
    let Two { first, second, heads, client, .. } = &two_heads(true);
    first.says(&[Says::NotLeading(Some(second.address))]);
    second.says(&[Says::Nothing]);
    let error = client.ask_within(ListHeads {}, Duration::from_secs(5)).await.expect_err("nobody answers");
    assert!(matches!(&error, ControlError::Deadline { peer, .. } if *peer == second.address.to_string()), "{error}");
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert_eq!((heads.current(), second.asked()), (first.address, 1));
}

#[tokio::test]
async fn what_is_in_doubt_is_not_asked_twice() {
    let Two { first, second, heads, client, .. } = &two_heads(true);
    first.says(&[Says::InDoubt]);
    let error = client.ask_within(ListHeads {}, LONG).await.expect_err("it ends");
    assert!(error.to_string().contains("whether it was done is not known"), "{error}");
    assert_eq!((error.outcome(), error.is_final()), (Outcome::Unknown, false));
    assert_eq!((heads.current(), first.asked(), second.asked()), (second.address, 1, 0));
}

#[tokio::test]
async fn a_subscription_is_over_when_another_head_is_asked() {
    let Two { first, second, heads, client, .. } = &two_heads(true);
    first.says(&[Says::Nothing]);
    let mut silent = client.subscribe(WatchRevocations {}).await.expect("it is taken");
    heads.refused(first.address, Some(second.address));
    let next = tokio::time::timeout(LONG, silent.next()).await.expect("it does not wait for ever");
    assert!(next.is_err());
}
