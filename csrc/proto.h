/*
 * Numbers of the xenstore protocol and bounds of this implementation.
 *
 * Everything a peer can choose is bounded by a constant of this file or by a
 * quota; a loop over peer-chosen data names the constant that bounds it.
 */
#ifndef XS_PROTO_H
#define XS_PROTO_H

#define XS_HEADER_SIZE 16u   /* type, req_id, tx_id, len: four native u32 */
#define XS_PAYLOAD_MAX 4096u /* bytes after a header, in either direction */
#define XS_MESSAGE_MAX (XS_HEADER_SIZE + XS_PAYLOAD_MAX)

/* The longest thing that can become an absolute path: a relative path filling a
 * payload, behind the longest home prefix "/local/domain/65535/". */
#define XS_PATH_MAX (XS_PAYLOAD_MAX + 20u)
/* Slack behind a path buffer, so that names can be loaded eight bytes at a time. */
#define XS_PATH_PAD 16u

#define XS_DOMID_ANY 0x7ff5u /* 32757: matches every domain in a permission list */
#define XS_DOMID_SELF 0x7ff0u
#define XS_DOMID_INVALID 0x7ff4u
#define XS_DOMID_FIRST_RESERVED 0x7ff0u

/* Entries that fit in one SET_PERMS payload: each needs a letter, a digit, a NUL. */
#define XS_PERMS_MAX (XS_PAYLOAD_MAX / 3u + 1u)

#endif
