resource "aws_db_instance" "ledger" {
  backup_retention_period = 14
  skip_final_snapshot     = false
}
