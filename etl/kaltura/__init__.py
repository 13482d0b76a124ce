"""The Kaltura client: reads pages of upload tokens, and nothing else.

``open_service`` gives a thread-safe ``UploadTokens`` whose session is proved.  Everything that
leaves this package as an error is an ``EtlError`` whose text contains no secret.

    service         open_service, ServiceSettings, Probe      the way in
    upload_token    UploadTokens, PageReply                   pages, look-ups by id
    session, ks     who we are: login, renewal, KS v2 made here
    retry           the one policy: attempts, waits, Retry-After, budget, interruption
    replies         the table of errors; what counts as a reply
    calls, client   calls under the policy; one POST
    transport       sockets: deadline, interruption, TLS, proxies
"""
