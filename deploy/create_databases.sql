-- Each service has a database of its own; PostgreSQL's image runs this on an empty volume.
CREATE DATABASE checkout;
CREATE DATABASE email;
CREATE DATABASE warehouse;
CREATE DATABASE rewards;
