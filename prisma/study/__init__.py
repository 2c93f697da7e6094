"""An analysis over a whole data set: `prisma analyze`."""
