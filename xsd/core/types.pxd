# The structs that the core's modules share. They hold state and nothing else; each is
# changed by the module of its noun.
#
#   Core ──┬── Domain (by domid) ───── Quota figures, account
#          ├── Conn (by id) ──┬────── its Domain
#          │                  ├────── watches (csrc), output queue (csrc), half-read input
#          │                  └────── Tx, Tx, ...   (each a base and a view of the tree)
#          ├── tree, watches  (csrc)
#          └── Effect queue: what Python must do for us

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from xsd.core.cxs cimport (
    XS_PERMS_MAX, xs_account, xs_author, xs_header, xs_history, xs_mem, xs_node, xs_oplog, xs_outq, xs_path, xs_pathset, xs_perm,
    xs_tally, xs_tree, xs_watch, xs_watch_owner, xs_watches, xs_watchpoint)

# Quotas, in the order of their names in quota.pyx.
cdef enum:
    Q_NODES
    Q_WATCHES
    Q_OUTSTANDING
    Q_MEMORY
    Q_TRANSACTIONS
    Q_TRANSACTION_NODES
    Q_NODE_PERMISSIONS
    Q_PATH_MAX
    Q_NODE_SIZE
    Q_TRANSACTION_REQUESTS
    Q_WATCH_EVENTS
    Q_COUNT

cdef enum ConnKind:
    CONN_SOCKET
    CONN_RING

# What received() says; bits.
cdef enum:
    RX_DIRTY = 1     # some connection gained output
    RX_EFFECTS = 2   # effects are waiting
    RX_PAUSE = 4     # do not read this connection until it is reported as runnable
    RX_MORE = 8      # the budget ended before the input did
    RX_TICK = 32     # tick() has something to do, or a new deadline
    RX_CLOSE = 16    # the peer broke the protocol: send what is queued, then close

cdef enum EffectKind:
    EFFECT_DOMAIN     # does this domain exist in the hypervisor?
    EFFECT_INTRODUCE  # map its ring, bind its port
    EFFECT_RELEASE    # unmap, unbind; nothing comes back
    EFFECT_CONTROL    # answer this CONTROL
    EFFECT_NOTICE     # tell the log of a soft quota; nothing comes back
    EFFECT_LOG        # a line for the log; nothing comes back

# Answers of a request handler beside XS_OK and the errors.
cdef enum:
    RC_WAIT = 1000     # an effect is under way: keep the request and try again
    RC_REPLIED = 1001  # the reply is queued (or will come with an effect)

cdef struct Domain:
    uint32_t domid
    bint exists          # the hypervisor knows it
    bint introduced
    bint shutdown        # seen shut down, told to watchers
    bint dying           # gone in the hypervisor, clean-up not yet done
    uint32_t targeted    # connections that act with its rights, at most
    uint32_t features    # ring features it is offered
    Conn *conn           # its ring, while introduced
    int64_t nodes        # owned
    int64_t node_bytes   # of those
    int64_t found_nodes  # both as check() has counted them in the tree
    int64_t found_bytes
    int64_t watches
    int64_t watch_bytes
    int64_t transactions
    int64_t tx_bytes     # logs of open transactions
    int64_t queued       # bytes of output waiting
    int64_t outstanding  # requests whose reply or events have not gone
    uint32_t hard[Q_COUNT]
    uint32_t soft[Q_COUNT]
    int64_t peak[Q_COUNT]
    uint32_t over_soft   # bit per quota
    uint32_t told_soft   # those of them that the log was told of
    int64_t notice_ns[Q_COUNT] # when it was told of each last
    xs_account account
    Domain *next         # of all domains
    # Credit for conflicts with transactions of others.
    double credit
    bint in_paused       # waits for credit before it is served again
    bint in_penalised    # below the burst limit
    Domain *paused_next
    Domain *penalised_next
    int64_t paused_since
    int64_t paused_ns    # in total
    uint64_t caused      # conflicts, in total
    uint64_t suffered
    uint64_t caused_lately # since the last summary
    # Credit for writes while transactions are open, in thousandths.
    int64_t write_credit
    int64_t write_time_ms
    bint write_logged
    bint write_waits     # on the list of those without credit
    Domain *write_next

# A request of a guest on its way out: alive until its reply and all its events have gone.
cdef struct Cause:
    uint32_t refs
    Conn *conn           # NULL: the connection has gone
    Cause *prev
    Cause *next

cdef struct Tx:
    uint32_t id
    Tx *next             # of the connection
    Tx *prev
    Tx *chain            # in its bucket, when the connection has many
    Tx *all_prev         # of everybody
    Tx *all_next
    xs_node *base        # the tree as it was at the start
    xs_node *top         # our view
    xs_pathset seen
    xs_oplog log         # successful changes, in order
    uint64_t requests
    bint poisoned        # a limit was reached: it can only be aborted
    bint replaying       # a trial: asked again, on another tree
    Conn *conn
    xs_oplog asked       # requests and digests of their answers, in order
    uint64_t start_commit  # number of the last commit before the start
    int64_t hold_until   # of a transaction with priority: until when others are held back
    bint doomed          # set permissions for a domain that has died: it cannot commit
    bint created         # some node
    bint failed          # through others
    bint held_others     # by its priority
    xs_tally *delta      # what our view gained over the base
    size_t delta_count
    size_t delta_cap
    xs_account *account  # of whoever pays for the memory
    int64_t charged      # bytes of seen and log, charged to the domain
    int64_t start_ns

cdef struct Conn:
    Core *core
    uint32_t id
    uint8_t kind
    bint privileged
    bint ignored         # broke the protocol on its ring: known, but no longer served
    bint closing
    bint dirty
    bint starved         # stopped because memory ran out
    bint paused          # stopped with input left, or told its reader to stop
    bint runnable
    bint replaying       # a stand-in: asks again what a transaction has asked
    Tx *asking           # transaction that keeps the request being handled
    size_t asked_at      # where, in what it has asked
    bint held            # a transaction with priority must end first
    int64_t hold_until   # its request is not held back longer, whoever has priority; 0: was not
    uint32_t failures    # of transactions in a row
    xs_pathset foreseen  # what the transaction that failed last had seen
    bint aging           # on the list of connections whose events may expire
    uint32_t domid
    uint32_t target      # domid whose rights it has in addition, or XS_DOMID_INVALID
    uint32_t error       # error word of the ring
    Domain *dom
    xs_watch_owner watches
    Tx *tx               # open transactions
    uint32_t tx_count
    Tx **tx_table        # by id; NULL while they are few
    size_t tx_buckets    # a power of two
    uint32_t last_tx
    xs_outq out
    char *inp            # input that could not be handled yet
    size_t inp_len
    size_t inp_cap
    size_t unread        # bytes of a ring that there was no memory for: they stay there
    uint64_t waiting     # effect that must complete first; 0: none
    uint32_t absent[32]  # domids that the hypervisor denied while a request was retried
    uint32_t absent_count
    xs_header pending    # request that an effect will answer
    bint owed            # it has been carried out, and there was no memory to say so
    int owed_rc
    Cause *causes
    Cause *cause         # of the request being handled
    int64_t pid          # peer credentials of a socket; -1 unknown
    int64_t uid
    uint64_t requests
    Conn *dirty_next
    Conn *run_next
    Conn *aging_next
    Conn *held_next

# An event that a change will cause, ready to be queued.
cdef struct Pending:
    xs_watch *watch
    Conn *conn
    const char *path
    uint32_t path_len
    bint special
    int64_t domid        # to append to the path, or -1

cdef struct Effect:
    uint64_t id
    uint32_t kind
    uint32_t conn
    uint32_t domid
    int64_t gfn
    int64_t port
    char *data
    size_t len
    bint taken
    Effect *next

cdef enum:
    BLAMES = 64  # conflicts that are kept explained

# Why a transaction failed.
cdef struct Blame:
    int64_t when_ns
    uint32_t conn        # of the victim
    uint32_t domid
    uint32_t tx
    uint32_t seen        # how the node was seen: XS_SEEN_ bits
    bint known           # who changed it is known
    xs_author culprit
    bint guilty          # proven by trial, and charged
    char *path
    uint32_t path_len

cdef struct Core:
    xs_mem mem
    xs_tree tree
    xs_node *top             # the live tree
    xs_watches watches
    uint32_t priv_domid
    uint32_t store_domid
    uint32_t hard[Q_COUNT]   # for domains to come
    uint32_t soft[Q_COUNT]
    bint quota_on
    bint perms_on
    bint event_perms_on
    int64_t event_timeout_ns # 0: events never expire
    size_t socket_output_max # bytes queued on a socket that is never read
    bint keep_orphans

    Domain *domains[65536]
    Domain *domain_list
    Conn **conns             # by id
    size_t conn_cap
    size_t conn_count
    uint32_t *free_ids
    size_t free_cap
    size_t free_count
    uint64_t owner_ids
    Conn *dirty_first
    Conn *dirty_last
    Conn *run_first
    Conn *run_last
    Conn *aging
    Effect *effects
    Effect *effects_last
    uint64_t effect_ids
    Tx *all_tx               # open ones
    uint64_t open_tx
    bint starved             # some connection is
    int64_t retry_ns         # when it may try again
    bint tick_wanted         # somebody should ask tick() for a deadline
    uint64_t deaths_due      # domains whose clean-up ran out of memory

    xs_history history
    Tx *young                # oldest open transaction that is still protected
    bint merge_on
    bint test_eagain
    uint64_t dice            # state of the generator behind test_eagain
    bint conflict_on
    bint credit_aggregate
    double credit_limit
    int64_t credit_period_ns
    int64_t credit_tick      # when the next point is given
    uint32_t paused_count
    Domain *paused_first     # with a rate that is an aggregate
    Domain *paused_last
    Domain *penalised_first
    Domain *penalised_last
    uint64_t failed          # commits, since the last summary
    uint64_t failed_alone    # of those, without a culprit
    int64_t summary_ns       # when the summary's time began; -1: nothing to tell
    Blame *blames            # the last conflicts explained, a ring
    uint64_t blame_count
    uint32_t priority_after  # failures in a row that give priority; 0: never
    int64_t priority_hold_ns
    Tx *priority             # the transaction that has it
    Conn *held
    uint64_t holds           # requests held back
    bint write_rate_on
    int64_t write_reserve    # thousandths
    int64_t write_domains
    int64_t write_mark       # last warning; -1: none
    int64_t write_rate       # units a second
    int64_t write_burst      # of a domain
    int64_t write_global     # of the reserve
    int64_t write_newcomers
    Domain *write_waiting
    bint log_debug           # tell the log of every conflict and credit change
    uint64_t commits_replay

    int64_t now
    # Scratch of the request being handled; one at a time.
    xs_path path
    xs_path other
    xs_perm perm[XS_PERMS_MAX]
    Pending *pending
    size_t pending_count
    size_t pending_cap
    xs_watchpoint **points
    size_t points_cap
    char *rx                 # where sockets are read into

    # Record of requests for the access log; drained by Python.
    bint access_on
    char *access
    size_t access_len
    size_t access_cap
    uint64_t access_lost

    uint64_t requests[32]    # by type
    uint64_t errors[32]      # by error
    uint64_t events_queued
    uint64_t events_merged
    uint64_t events_dropped
    uint64_t events_expired
    uint64_t commits
    uint64_t commits_swap
    uint64_t commits_merge
    uint64_t conflicts
    uint64_t aborts
    uint64_t bytes_in
    uint64_t bytes_out
    uint64_t soft_hits
    uint64_t nodes_swept     # looked at because a domain had died
