"""The peers' own programs: each runs in an environment of its own, with ``python -m``.

Settings come from the environment, as everywhere in this project: KALTURA_SERVICE_URL,
KALTURA_PARTNER_ID, KALTURA_ADMIN_SECRET and DATABASE_URL; PEER_FOLDER is a folder that a peer may
keep its state in, the same from night to night.
"""
